"""Stub commands, first on PATH, that record their arguments and answer what a test tells them."""

import json
import os
import pathlib
import subprocess
import sys
import time

import rfn_jax

LAUNCH = pathlib.Path(rfn_jax.__file__).parents[1] / 'launch'
NAMES = ('docker', 'gcloud', 'gcluster', 'kubectl', 'sbatch', 'scontrol', 'srun')
ENVIRONMENT = ('JAX_LOCAL_DEVICE_IDS', 'SRUN_CPUS_PER_TASK')

# `gcloud ... ssh` runs the command in the home of each worker; answers are taken in the order of the list.
STUB = r"""#!%s -SE
import json, os, pathlib, subprocess, sys
home, name, arguments = pathlib.Path(__file__).parent, pathlib.Path(sys.argv[0]).name, sys.argv[1:]
text = sys.stdin.read() if '--filename=-' in arguments else ''
environment = {key: os.environ[key] for key in %r if key in os.environ}
with (home / 'calls').open('a') as calls:
    calls.write(json.dumps([[name, *arguments], text, environment]) + '\n')
status = 0
if 'ssh' in arguments:
    command = arguments[-1].removeprefix('--command=')
    workers = sorted((home / 'workers').iterdir())[: 1 if '--worker=0' in arguments else None]
    statuses = [subprocess.call(['bash', '-c', command], env={**os.environ, 'HOME': str(w)}, cwd=w) for w in workers]
    status = next((s for s in statuses if s), 0)
answers = json.loads((home / 'answers').read_text())
for answer in answers:
    if answer[0] in ' '.join([name, *arguments]):
        answers.remove(answer)
        (home / 'answers').write_text(json.dumps(answers))
        status = answer[1]
        print(answer[2], file=sys.stderr if status else sys.stdout)
        break
sys.exit(status)
"""


class Stubs:
    """A folder of stubs and what was recorded in it."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        for name in NAMES:
            self.write(name, STUB % (sys.executable, ENVIRONMENT))
        self.write('sleep', '#!/bin/sh\nexec /bin/sleep 0.01\n')
        self.answer([])

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, answers: list) -> None:
        """What commands that contain a text answer, once each: (text, status, output)."""
        (self.folder / 'answers').write_text(json.dumps(answers))

    def start(self, launcher: str, *arguments: str, **environment: str) -> subprocess.Popen:
        environment = {**os.environ, 'PATH': f'{self.folder}:{os.environ["PATH"]}', **environment}
        command = [LAUNCH / launcher, *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=self.folder
        )

    def run(self, launcher: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        process = self.start(launcher, *arguments, **environment)
        output, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def interrupt(self, process: subprocess.Popen, number: int, *ready: pathlib.Path) -> None:
        """Sends a signal as soon as some files are there, and waits for the end."""
        deadline = time.monotonic() + 20
        while not all(path.exists() for path in ready) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=20)

    def records(self) -> list:
        """The commands with what they read and some of their environment."""
        path = self.folder / 'calls'
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls(self) -> list[list[str]]:
        return [call for call, *_ in self.records()]


def shell(text: str) -> list[list[str]]:
    """Commands as bash reads them; it prints the words of each on a line."""
    script = ''.join(f'printf "%s\\0" {line}; echo\n' for line in text.splitlines())
    # $'...' may hold line breaks: the words are separated by NUL, and commands by NUL and a line break.
    output = subprocess.run(['bash', '-c', script], capture_output=True, text=True, check=True).stdout
    return [command.split('\0') for command in output.removesuffix('\0\n').split('\0\n')]
