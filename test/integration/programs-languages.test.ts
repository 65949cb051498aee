// Real programs, with nothing but defaults: what languages and their tools need.
import { runIsolated, type SpawnOptions } from 'cloister';
import { expect, test } from 'vitest';
import { nodeInside, nodeMounts } from '../helpers/installed.js';
import { testNeeding } from '../helpers/lane.js';

/** What it has printed; everything that went wrong, if something did. */
async function printed(command: string, args: readonly string[], options: SpawnOptions = {}): Promise<string> {
  const { stdout, stderr, exitCode, signal } = await runIsolated(command, args, options);
  expect({ exitCode, signal, stderr }).toEqual({ exitCode: 0, signal: null, stderr: '' });
  return stdout;
}

const file = (target: string, contents: string) => ({ type: 'file', target, contents }) as const;

testNeeding(['program:bash'])('bash: coprocesses, process substitution, jobs, traps, /dev/tcp', async () => {
  const script = `
    set -euo pipefail
    coproc upper { tr a-z A-Z; }
    echo through a coprocess >&"\${upper[1]}"
    exec {upper[1]}>&-
    cat <&"\${upper[0]}"
    diff <(printf '1\\n2\\n') <(printf '1\\n3\\n') || echo "they differ: $?"
    (exit 7) & wait $! || echo "the job has ended with $?"
    trap 'echo a trap' USR1
    kill -USR1 $$
    for n in {1..200}; do echo "$n"; done | awk '{ sum += $1 } END { print sum }'
    { (exec 3<>/dev/tcp/localhost/9) 2>&1 || true; } | grep -o 'Connection refused' | uniq
    cd ~ && echo data > kept && echo "$(<kept) in $PWD"
    mktemp -p "\${TMPDIR:-/tmp}" XXXX > /dev/null && echo a temporary file`;
  expect(await printed('bash', ['-c', script])).toMatchInlineSnapshot(`
    "THROUGH A COPROCESS
    2c2
    < 2
    ---
    > 3
    they differ: 1
    the job has ended with 7
    a trap
    20100
    Connection refused
    data in /root
    a temporary file
    "
  `);
});

const pythonMain = `
import multiprocessing as mp
import os
from multiprocessing import shared_memory

def square(n):
    return n * n

def add(counter, lock, times):
    for _ in range(times):
        with lock:
            counter.value += 1

def fill(name):
    block = shared_memory.SharedMemory(name)
    block.buf[:5] = b'hello'
    block.close()

if __name__ == '__main__':
    for method in 'fork', 'spawn', 'forkserver':
        context = mp.get_context(method)
        with context.Pool(3) as pool:
            print(method, pool.map(square, range(8)))
    counter, lock = mp.Value('i', 0), mp.Lock()
    workers = [mp.Process(target=add, args=(counter, lock, 250)) for _ in range(4)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    print('semaphores', counter.value, [worker.exitcode for worker in workers])
    block = shared_memory.SharedMemory(create=True, size=1 << 20)
    filler = mp.Process(target=fill, args=(block.name,))
    filler.start(); filler.join()
    print('shared memory', bytes(block.buf[:5]))
    block.close(); block.unlink()
    with mp.Manager() as manager:
        shared = manager.dict(a=1)
        shared['b'] = os.cpu_count() > 0
        print('manager', dict(shared))
`;

const pythonThreads = `
import asyncio, concurrent.futures, os, pathlib, pwd, queue, socket, sqlite3, ssl, subprocess, tempfile, threading
results = queue.Queue()
threads = [threading.Thread(target=lambda n=n: results.put(n * n)) for n in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print('threads', sum(results.get() for _ in threads))

server = socket.create_server(('localhost', 0))
def serve():
    connection, _ = server.accept()
    connection.sendall(connection.recv(100)[::-1])
    connection.close()
threading.Thread(target=serve).start()
client = socket.create_connection(('localhost', server.getsockname()[1]))
client.sendall(b'abc')
print('loopback', client.recv(100))

async def main():
    process = await asyncio.create_subprocess_exec('echo', 'from a child', stdout=asyncio.subprocess.PIPE)
    print('asyncio', (await process.communicate())[0])
asyncio.run(main())
with concurrent.futures.ProcessPoolExecutor(2) as pool: print('executor', list(pool.map(abs, [-1, -2])))
print('user', pwd.getpwuid(os.getuid()).pw_name, pathlib.Path.home(), tempfile.gettempdir(), ssl.create_default_context().verify_mode.name)
`;

testNeeding(['python3'])('python3: threads, sockets, asyncio, child processes', async () => {
  expect(await printed('/usr/bin/python3', ['-c', pythonThreads])).toMatchInlineSnapshot(`
    "threads 40425
    loopback b'cba'
    asyncio b'from a child\\n'
    executor [1, 2]
    user root /root /tmp CERT_REQUIRED
    "
  `);
});

testNeeding(['python3'])('python3: multiprocessing in every way, with semaphores and shared memory', async () => {
  expect(await printed('/usr/bin/python3', ['/srv/main.py'], { mounts: [file('/srv/main.py', pythonMain)] })).toMatchInlineSnapshot(`
    "fork [0, 1, 4, 9, 16, 25, 36, 49]
    spawn [0, 1, 4, 9, 16, 25, 36, 49]
    forkserver [0, 1, 4, 9, 16, 25, 36, 49]
    semaphores 1000 [0, 0, 0, 0]
    shared memory b'hello'
    manager {'a': 1, 'b': True}
    "
  `);
});

const nodeScript = `
import { execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import { watch, writeFileSync, mkdtempSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir, userInfo, homedir, networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';

if (process.argv[2] === 'child') {
  process.on('message', (n) => process.send(n + 1, () => process.disconnect()));
} else {
  const server = createServer((request, response) => request.pipe(response.setHeader('x-path', request.url))).listen(0, 'localhost');
  await once(server, 'listening');
  const answer = await fetch(\`http://localhost:\${server.address().port}/echo\`, { method: 'POST', body: 'sent' });
  console.log('http', answer.status, answer.headers.get('x-path'), await answer.text());
  server.close();

  const memory = new SharedArrayBuffer(4);
  const workers = [1, 2, 3].map((workerData) =>
    new Worker('const { workerData: { n, memory } } = require("worker_threads"); Atomics.add(new Int32Array(memory), 0, n)', { eval: true, workerData: { n: workerData, memory } }));
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  console.log('workers', new Int32Array(memory)[0]);

  const add = 'AGFzbQEAAAABBwFgAn9/AX8DAgEABwcBA2FkZAAACgkBBwAgACABags=';
  const { instance } = await WebAssembly.instantiate(Buffer.from(add, 'base64'));
  console.log('wasm', instance.exports.add(40, 2));

  console.log('child', execFileSync(process.execPath, ['-p', '6 * 7'], { encoding: 'utf8' }).trim());
  const child = fork(process.argv[1], ['child']);
  child.send(1);
  console.log('ipc', (await once(child, 'message'))[0]);

  const folder = mkdtempSync(join(tmpdir(), 'watched-'));
  const watcher = watch(folder);
  const change = once(watcher, 'change');
  writeFileSync(join(folder, 'new'), '');
  console.log('inotify', (await change)[1]);
  watcher.close();
  console.log('user', userInfo().username, homedir(), tmpdir(), Object.keys(networkInterfaces()));
}
`;

test('node: an http server and its client, worker threads, wasm, children, file events', async () => {
  const mounts = [...nodeMounts, file('/srv/main.mjs', nodeScript)];
  expect(await printed(nodeInside, ['/srv/main.mjs'], { mounts })).toMatchInlineSnapshot(`
    "http 200 /echo sent
    workers 6
    wasm 42
    child 42
    ipc 2
    inotify new
    user root /root /tmp [ 'lo' ]
    "
  `);
});

const makefile = `
CFLAGS = -O2 -Wall -g
program: main.o words.o libcount.a
\t$(CC) $(CFLAGS) -o $@ main.o words.o -L. -lcount -lpthread
main.o words.o count.o: count.h
libcount.a: count.o
\t$(AR) rcs $@ $^
check: program
\t./program one two three
`;
const sources = [
  file('/src/words/Makefile', makefile),
  file('/src/words/count.h', 'unsigned count(int words);\nvoid say(unsigned number);\n'),
  file('/src/words/count.c', '#include "count.h"\nunsigned count(int words) { return (unsigned)words - 1; }\n'),
  file('/src/words/words.c', '#include <stdio.h>\n#include "count.h"\nvoid say(unsigned number) { printf("%u words\\n", number); }\n'),
  file(
    '/src/words/main.c',
    `#include <pthread.h>
#include "count.h"
static void *run(void *words) { say(count(*(int *)words)); return 0; }
int main(int argc, char **argv) {
  pthread_t thread;
  (void)argv;
  return pthread_create(&thread, 0, run, &argc) || pthread_join(thread, 0);
}
`,
  ),
];

testNeeding(['program:gcc', 'program:make', 'program:ar'])('gcc and make: a program of several files, built in parallel and run', async () => {
  const script = 'cp -r /src/words /tmp/words && cd /tmp/words && make -s -j3 check && make -q program && echo "nothing to be done"';
  expect(await printed('sh', ['-c', script], { mounts: sources })).toMatchInlineSnapshot(`
    "3 words
    nothing to be done
    "
  `);
});
