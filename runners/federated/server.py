"""Federated averaging: clients train on rows that never leave them, the server averages their states.

    python server.py TRAINER CLIENTS ROUNDS RESULT    # TRAINER is a folder of export-trainer; prints its port

In each round a client gets a state, trains it on its own rows, and posts it with the number of these (McMahan et al.,
"Communication-efficient learning of deep networks from decentralized data", AISTATS 2017, algorithm 1).
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from onnxsurgeon_runner import Trainer, read_state, write_state

folder, clients, rounds, result = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
states = [(Path(folder) / "state.safetensors").read_bytes()]  # of each round that has begun
posted, turn = [], threading.Condition()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with turn:  # a client that is early waits for the round
            turn.wait_for(lambda: len(states) > int(self.path[1:]))
        self.answer(states[int(self.path[1:])])

    def do_POST(self):
        with turn:
            result.write_bytes(self.rfile.read(min(int(self.headers["content-length"]), 2 * len(states[0]))))
            Trainer(folder, result)  # raises where it is no state of this trainer
            posted.append((int(self.headers["x-rows"]), read_state(result)[0]))
            if len(posted) == clients:
                total, first = sum(rows for rows, _ in posted), posted[0][1]
                mean = {name: sum(rows / total * state[name] for rows, state in posted) for name in first}
                write_state(result, {name: values.astype(first[name].dtype) for name, values in mean.items()})
                states.append(result.read_bytes())
                posted.clear()
                turn.notify_all()
        self.answer(b"")
        if len(states) > rounds:
            threading.Thread(target=server.shutdown).start()

    def answer(self, content):
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
