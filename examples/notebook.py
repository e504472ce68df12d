# %% [markdown]
# # distill from a notebook
#
# Open this file in VS Code or Jupytext and run it cell by cell; every cell is run by the tests.

# %%
import distill

distill.write_starter("shop")  # a small workflow to start from: rules.md, tools.json, gold.jsonl, …
workflow = distill.load_workflow("shop/rules.md")
[(rule.id, rule.then.kind) for rule in workflow.rules]

# %% [markdown]
# Training data, as `distill gen` makes it. The embedded teacher needs no key and no server; for
# another one: `teacher={"kind": "openai", "model": "gpt-5-mini"}`.

# %%
run = distill.make_data(workflow, "runs/notebook", data={"target": 60})
[(state.stage, state.state) for state in run.status()]

# %% [markdown]
# What was made from what cannot be mixed up: other settings in the same folder are an error that
# names them, the same that the command line prints.

# %%
try:
    distill.make_data(workflow, "runs/notebook", data={"target": 61})
except distill.DistillError as error:
    print(error)

# %% [markdown]
# The rows as a Hugging Face `Dataset`, ready for TRL: the last message is the label. From here on
# `pip install "distill[embedded]"` is needed.

# %%
examples = run.examples("train")
examples[0]["messages"]

# %% [markdown]
# Tune the embedded student and score it. One epoch over 60 rows teaches it next to nothing: leave
# both settings out for a student that is of use.

# %%
run.train(epochs=1, threads=1)
scores = run.evaluate()
{arm: one.tool_accuracy for arm, one in scores["gold"].items()}

# %%
answer = run.route("where is my parcel?")
answer.calls, answer.confidence
