"""usage: type.py SOCKET LOG LINE…: types each line at the kernel's prompt, when the prompt is there. A process of its own, as
gdb's Python stands still while the machine runs."""

import socket
import sys
import threading
import time


def main(path, log, lines):
    deadline = time.monotonic() + 60
    with socket.socket(socket.AF_UNIX) as console:
        console.connect(path)
        # A console that nobody reads fills its socket, and stops the machine.
        threading.Thread(target=drain, args=(console,), daemon=True).start()
        for number, line in enumerate(lines, 1):
            while prompts(log) < number:
                if time.monotonic() > deadline:
                    sys.exit(f"no prompt for {line!r} within a minute")
                time.sleep(0.05)
            console.sendall(line.encode() + b"\r")
        # The socket stays open until the machine is stopped.
        time.sleep(20)


def drain(console):
    while console.recv(4096):
        pass


def prompts(log):
    with open(log, encoding="utf-8", errors="replace") as text:
        return text.read().count("quarry> ")


main(sys.argv[1], sys.argv[2], sys.argv[3:])
