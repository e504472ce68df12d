"""Tokenizers made on the spot: byte-level BPE, with and without chat templates."""

from __future__ import annotations

from functools import cache
from typing import Any

from distill.render import MARKERS
from distill.workflow.model import Tool

QUERY = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "query string"}},
    "required": ["query"],
}
TOOLS = (
    Tool(
        name="search_knowledge_base",
        description="Search internal company documents, policies and project data.",
        parameters=QUERY,
    ),
    Tool(name="search_google", description="Search public information.", parameters=QUERY),
)

# After the published one: dictsort, bare keys in calls, the developer turn left to the caller.
FUNCTION_GEMMA_TEMPLATE = """\
{%- macro value(v) -%}
{%- if v is string -%}<escape>{{ v }}<escape>
{%- elif v is boolean -%}{{ 'true' if v else 'false' }}
{%- elif v is mapping -%}{ {%- for k, x in v | dictsort -%}
{{ k }}:{{ value(x) }}{{ ',' if not loop.last }}{%- endfor -%} }
{%- elif v is iterable -%}[{%- for x in v -%}{{ value(x) }}{{ ',' if not loop.last }}{%- endfor -%}]
{%- else -%}{{ v }}{%- endif -%}
{%- endmacro -%}
{{ bos_token }}
{%- set turns = messages -%}
{%- if tools or messages[0]['role'] in ['system', 'developer'] -%}
<start_of_turn>developer
{% if messages[0]['role'] in ['system', 'developer'] -%}
{{ messages[0]['content'] | trim }}{%- set turns = messages[1:] -%}{%- endif -%}
{%- for tool in tools or [] -%}
<start_function_declaration>declaration:{{ tool.function.name -}}
{description:{{ value(tool.function.description) }}}<end_function_declaration>
{%- endfor -%}<end_of_turn>
{% endif -%}
{%- for message in turns -%}
<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}
{% if message.tool_calls -%}
{%- for call in message.tool_calls -%}
<start_function_call>call:{{ call.function.name }}{{ value(call.function.arguments) -}}
<end_function_call>{%- endfor -%}<start_function_response>
{%- else -%}{{ message.content | trim }}<end_of_turn>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<start_of_turn>model
{% endif -%}"""

# After Qwen's: tools in the system turn, and an empty thought where thinking is off.
HERMES_TEMPLATE = """\
{%- if tools -%}<|im_start|>system
{%- if messages[0].role == 'system' %}
{{ messages[0].content }}
{%- endif %}
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
{% elif messages[0].role == 'system' -%}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif -%}
{%- for message in messages if message.role != 'system' -%}
<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and loop.last -%}<think>

</think>

{% endif -%}
{{ message.content }}
{%- for call in message.tool_calls or [] -%}
{{ '\\n' if message.content or not loop.first }}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% if enable_thinking is defined and not enable_thinking -%}<think>

</think>

{% endif -%}{%- endif -%}"""

LLAMA_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages -%}
<|start_header_id|>{{ message.role }}<|end_header_id|>

{% if loop.first and tools -%}{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif -%}
{%- if message.tool_calls -%}
{%- if message.tool_calls | length != 1 -%}{{ raise_exception('one call at a time') }}{%- endif -%}
{%- set call = message.tool_calls[0].function -%}
{"name": "{{ call.name }}", "parameters": {{ call.arguments | tojson }}}
{%- else -%}{{ message.content | trim }}{%- endif -%}<|eot_id|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|start_header_id|>assistant<|end_header_id|>

{% endif -%}"""

# Knows neither tools nor calls, as the templates of many small models.
PLAIN_TEMPLATE = """\
{%- for message in messages -%}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""

SPECIAL = (
    *("<pad>", "<bos>", "<eos>", *MARKERS),
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
CORPUS = (
    "What is the reimbursement limit for travel meals?",
    "search_knowledge_base search_google query string policy declaration description parameters",
    '{"name": "search_google", "arguments": {"query": "weather in Lisbon"}}',
    "assistant user system developer model\n\n",
)


@cache
def tokenizer(template: str | None = None, special: tuple[str, ...] = SPECIAL) -> Any:
    """A byte-level BPE of a few hundred tokens with every marker in it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    # As Qwen and Llama split: line ends stay together whatever follows them.
    words = Regex(
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    split = pre_tokenizers.Split(words, "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )
    made.chat_template = template
    return made
