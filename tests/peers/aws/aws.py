#!/usr/bin/env python3
"""Stands in for parts of AWS on loopback: `aws.py KIND --port-file FILE`. See README.md."""

import argparse
import json
import os
import signal
import threading

import front
import metadata


def main():
    options = arguments()
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    if not options.keep:
        # Whoever started this has ended, or wants it to end.
        threading.Thread(target=lambda: (wait_for_end(), done.set()), daemon=True).start()
    emulator = None
    try:
        if options.kind in ("moto", "ministack"):
            # Here, since the other kinds need no more than Python itself.
            import emulators
            import world

            emulator = emulators.Moto() if options.kind == "moto" else emulators.Ministack()
            orders = {
                "call": emulators.call(emulator.url, emulator.administrator),
                "enforce": emulator.enforce,
                "world": world.make(emulator),
                "administrator": lambda _: keys_of(emulator),
            }
            server = front.Server(front.Handler, front=front.Front(emulator.url, orders))
        elif options.kind == "fault":
            server = front.Server(front.Handler, front=front.Front(options.upstream))
        else:
            source = metadata.Source(options)
            if options.upstream:
                source.administrator = metadata.ask(options.upstream, "administrator", {})
            source.token_file = options.token_file
            handler = metadata.Instance if options.kind == "imds" else metadata.Container
            server = front.Server(handler, source=source)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tell(options.port_file, server.server_port)
        done.wait()
    finally:
        if emulator:
            emulator.close()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["moto", "ministack", "imds", "ecs", "fault"])
    parser.add_argument("--port-file", required=True, help="gets the port, in decimal, once it answers")
    parser.add_argument("--keep", action="store_true", help="run on when standard input ends; SIGTERM ends it")
    parser.add_argument("--upstream", help="fault: what it stands before; imds, ecs: the emulator that gives out the role's sessions")
    parser.add_argument("--role", default="lictor-agent", help="imds, ecs: the role's name")
    parser.add_argument("--account", default="111122223333", help="imds, ecs: the role's account")
    parser.add_argument("--region", default="eu-central-1", help="imds, ecs: where the machine is")
    parser.add_argument("--lifetime", type=float, default=21600.0, help="imds, ecs: seconds that sessions last by what is said of them")
    parser.add_argument("--keys-file", help="imds, ecs: JSON with access_key_id, secret_access_key, session_token to give out")
    parser.add_argument("--token-file", help="ecs: the file that holds what the Authorization header must be")
    options = parser.parse_args()
    if options.kind == "fault" and not options.upstream:
        parser.error("fault needs --upstream")
    if options.kind == "ecs" and not options.token_file:
        parser.error("ecs needs --token-file")
    options.keys = None
    if options.keys_file:
        with open(options.keys_file, encoding="utf-8") as file:
            options.keys = json.load(file)
    return options


def keys_of(emulator):
    return {
        "access_key_id": emulator.administrator["aws_access_key_id"],
        "secret_access_key": emulator.administrator["aws_secret_access_key"],
        "url": emulator.url,
    }


def wait_for_end():
    # Not by sys.stdin, whose lock this thread would hold when the interpreter ends.
    while os.read(0, 4096):
        pass


def tell(path, port):
    """Writes the port as a whole or not at all."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(f"{port}\n")
    os.replace(path + ".new", path)


if __name__ == "__main__":
    main()
