"""A fake vLLM: a server that starts, serves, dies and ignores SIGTERM as vLLM may.

    python fake_vllm.py [--delay S] [--die-at-start N] [--ignore-sigterm] [--no-health]
                        --model M --host H --port P --served-model-name NAME...

It speaks /health, /metrics, /v1/models, /v1/chat/completions and /v1/completions. Each start leaves
a line in the file that FAKE_VLLM_PIDS names, with the ids of all its processes. POST /die ends it.
Other flags are written to the log.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IGNORE_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
)
REPLY = '{"user": "Where is the policy?", "reply": "Here."}'


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # As vLLM does: a port where somebody listens is still an error.
    allow_reuse_address = True
    names: list[str]
    ready_at = 0.0
    healthy = True
    prompts = 0
    completions = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        match self.path:
            case "/health":
                up = self.server.healthy and time.monotonic() >= self.server.ready_at
                self._send(200 if up else 503, {})
            case "/metrics":
                self._send_text(self._metrics())
            case "/v1/models":
                self._send(200, {"data": [{"id": name} for name in self.server.names]})
            case _:
                self._send(404, {"error": {"message": "no such page"}})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        match self.path:
            case "/die":
                print("ValueError: the engine died on request", flush=True)
                os._exit(3)
            case "/v1/chat/completions":
                self.server.prompts += 10
                self.server.completions += 5
                message = {"role": "assistant", "content": REPLY}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self._send(200, {"model": self.server.names[0], "choices": [choice]})
            case _:
                self._send(404, {"error": {"message": "no such page"}})

    def _metrics(self) -> str:
        return "".join(
            f"# HELP vllm:{name} words\n# TYPE vllm:{name} counter\n"
            f'vllm:{name}{{engine="0",model_name="a b"}} {value}\n'
            f'vllm:{name}{{engine="1",model_name="a b"}} 0.0\n'
            for name, value in {
                "prompt_tokens_total": float(self.server.prompts),
                "generation_tokens_total": float(self.server.completions),
                "prefix_cache_queries_total": 200.0,
                "prefix_cache_hits_total": 50.0,
            }.items()
        )

    def _send(self, status: int, value: object) -> None:
        self._send_text(json.dumps(value), status)

    def _send_text(self, text: str, status: int = 200) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def offspring() -> list[int]:
    """A child that ignores SIGTERM, and one that has left the session and ignores it too."""
    stay = subprocess.Popen([sys.executable, "-S", "-c", IGNORE_SIGTERM])
    leave = subprocess.Popen([sys.executable, "-S", "-c", IGNORE_SIGTERM], start_new_session=True)
    return [stay.pid, leave.pid]


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--die-at-start", type=int)
    parser.add_argument("--ignore-sigterm", action="store_true")
    parser.add_argument("--no-health", action="store_true")
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", nargs="+", required=True)
    options, others = parser.parse_known_args()
    pids = [os.getpid(), *(offspring() if options.ignore_sigterm else [])]
    if "FAKE_VLLM_PIDS" in os.environ:
        with open(os.environ["FAKE_VLLM_PIDS"], "a") as file:
            file.write(" ".join(map(str, pids)) + "\n")
    print(f"INFO non-default args: {others} on {options.host}:{options.port}", flush=True)
    print("INFO keys:", sorted(n for n in os.environ if n.endswith("_API_KEY")), flush=True)
    if options.ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = Server((options.host, options.port), Handler)
    if options.die_at_start is not None:
        print("\x1b[31mRuntimeError: Failed core proc(s): {}\x1b[0m", flush=True)
        sys.exit(options.die_at_start)
    server.names = options.served_model_name
    server.healthy = not options.no_health
    server.ready_at = time.monotonic() + options.delay
    threading.Thread(target=server.serve_forever).start()


if __name__ == "__main__":
    main()
