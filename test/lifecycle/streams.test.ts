import { once } from 'node:events';
import { closeSync, createReadStream, createWriteStream, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Duplex, PassThrough, Readable, type Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { afterAll, describe, expect, test } from 'vitest';
import { census, settled } from '../helpers/census.js';
import { inChild } from '../helpers/harness.js';
import { fixturesDirectory, insideFixture, parseAnswer, type Question, toArguments, withFixtures } from '../helpers/probe.js';
import { manySpawns, piles, story } from './story.js';

const folder = mkdtempSync(join(tmpdir(), 'cloister-streams-'));
afterAll(() => rmSync(folder, { recursive: true }));

function start<const O extends SpawnOptions>(questions: readonly Question[], options: O) {
  return spawnIsolated(insideFixture('probe'), toArguments(questions), withFixtures(options));
}
const sh = <const O extends SpawnOptions>(script: string, options: O) => spawnIsolated('/bin/sh', ['-c', script], options);

const megabytes = 20;
const many = megabytes * 2 ** 20;

/** Every byte is checked, not only how many there are. */
function* pattern(size: number): Generator<Buffer> {
  const piece = Buffer.alloc(65_521);
  for (let at = 0; at < size; at += piece.length) {
    for (let i = 0; i < piece.length; i += 4) piece.writeUInt32LE((at + i) & 0xfffffffc, Math.min(i, piece.length - 4));
    yield Buffer.from(piece.subarray(0, Math.min(piece.length, size - at)));
  }
}

describe('forms of stdio', () => {
  test('by default three pipes', async () => {
    const child = start(['fds'], {});
    const answer = parseAnswer('fds', await text(child.stdout));
    expect(answer.fds.map(({ fd, type, access }) => [fd, type, access])).toEqual([
      [0, 'fifo', 'r'],
      [1, 'fifo', 'w'],
      [2, 'fifo', 'w'],
    ]);
    expect(child.stdio).toEqual([child.stdin, child.stdout, child.stderr]);
    await child.exited;
  });

  test.each([
    ['pipe', true],
    ['ignore', false],
    ['inherit', false],
  ] as const)('one word for all: %s', async (stdio, isPiped) => {
    const child = start([['exit', 0]], { stdio });
    expect([child.stdin, child.stdout, child.stderr].map((stream) => stream !== null)).toEqual([isPiped, isPiped, isPiped]);
    expect((await child.exited).exitCode).toBe(0);
  });

  test('ignored ones are /dev/null', async () => {
    const child = start(['fds'], { stdio: ['ignore', 'pipe', 'ignore'] });
    const { fds } = parseAnswer('fds', await text(child.stdout));
    expect([fds[0]?.rdev, fds[2]?.rdev, fds.length]).toEqual(['1:3', '1:3', 3]);
  });

  test('null, undefined and a short array are pipes', async () => {
    const child = sh('cat; echo err >&2', { stdio: [null, undefined] });
    child.stdin.end('in');
    const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)]);
    expect([out, err]).toEqual(['in', 'err\n']);
  });

  test('null above the three is ignored', async () => {
    const child = start(['fds'], { stdio: ['ignore', 'pipe', 'ignore', null, undefined, 'pipe'] });
    const { fds } = parseAnswer('fds', await text(child.stdout));
    expect(fds.map(({ fd, rdev, type }) => [fd, type === 'socket' ? type : rdev])).toEqual([
      [0, '1:3'],
      [1, '0:0'],
      [2, '1:3'],
      [3, '1:3'],
      [4, '1:3'],
      [5, 'socket'],
    ]);
    expect(child.stdio.map((stream) => stream !== null)).toEqual([false, true, false, false, false, true]);
  });

  test('inherit is that of the host', async () => {
    const { stdout, stderr } = await inChild(
      `import { runIsolated } from 'cloister';
       const { exitCode } = await runIsolated('/bin/sh', ['-c', 'cat; echo err >&2; exit 3'], { stdio: 'inherit' });
       console.log(exitCode);`,
      { input: 'in\n' },
    );
    expect([stdout, stderr]).toEqual(['in\n3\n', 'err\n']);
  });

  test('inherit above the three is that number of the host', async () => {
    const { stdout } = await inChild(
      `import { runIsolated } from 'cloister';
       import { openSync, readFileSync } from 'node:fs';
       const file = process.argv[1];
       const fd = openSync(file, 'w+');
       const stdio = ['ignore', 'inherit', 'inherit', ...Array(fd - 3).fill('ignore'), 'inherit'];
       await runIsolated('/bin/bash', ['-c', 'echo hello >&' + fd], { stdio });
       console.log(readFileSync(file, 'utf8'));`,
      { args: [join(folder, 'inherited')] },
    );
    expect(stdout).toBe('hello\n\n');
  });

  test('numbers', async () => {
    const file = join(folder, 'numbers');
    writeFileSync(file, 'from a file');
    const [from, to] = [openSync(file, 'r'), openSync(`${file}.out`, 'w')];
    // The order is such that a careless dup2 would overwrite the one with the other.
    const child = sh('cat; echo err >&2', { stdio: [from, to, to] });
    expect(child.stdio).toEqual([null, null, null]);
    await child.exited;
    closeSync(from);
    closeSync(to);
    expect(readFileSync(`${file}.out`, 'utf8')).toBe('from a fileerr\n');
  });

  test('numbers that are those of the program, crossed', async () => {
    const { stdout, stderr } = await inChild(`
      import { runIsolated } from 'cloister';
      await runIsolated('/bin/sh', ['-c', 'echo to 1; echo to 2 >&2'], { stdio: ['ignore', 2, 1] });
    `);
    expect([stdout, stderr]).toEqual(['to 2\n', 'to 1\n']);
  });

  test('a descriptor that is not open', async () => {
    const child = start([['exit', 0]], { stdio: ['ignore', 9999, 'ignore'] });
    const error: Error = await child.exited.then(
      () => Promise.reject(),
      (e) => e,
    );
    expect(error.message).toMatchInlineSnapshot(`"EBADF: make the streams (fcntl): bad file descriptor"`);
  });

  test('streams of files', async () => {
    const file = join(folder, 'streams');
    writeFileSync(file, 'from a stream');
    const [from, to] = [createReadStream(file), createWriteStream(`${file}.out`)];
    await Promise.all([once(from, 'open'), once(to, 'open')]);
    const child = sh('cat', { stdio: [from, to, 'inherit'] });
    await child.exited;
    from.destroy();
    to.destroy();
    expect(readFileSync(`${file}.out`, 'utf8')).toBe('from a stream');
  });

  test('a socket', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const socket = connect((server.address() as { port: number }).port, '127.0.0.1');
    const [[peer]] = await Promise.all([once(server, 'connection'), once(socket, 'connect')]);
    const child = sh('echo through a socket', { stdio: ['ignore', peer, 'inherit'] });
    await child.exited;
    peer.destroy();
    expect(await text(socket)).toBe('through a socket\n');
    server.close();
  });

  test('a stream without a descriptor', () => {
    expect(() => start(['fds'], { stdio: ['ignore', new PassThrough(), 'ignore'] })).toThrowErrorMatchingInlineSnapshot(
      `[TypeError: option 'stdio[1]' takes a stream with a descriptor, once it is open; got an instance of PassThrough]`,
    );
  });

  test('more than three: a Duplex each', async () => {
    const child = start(
      [
        ['write-fd', 3, 'from inside'],
        ['echo-fd', 4],
      ],
      { stdio: ['ignore', 'pipe', 'inherit', 'pipe', 'pipe'] },
    );
    const [, , , third, fourth] = child.stdio as readonly unknown[] as [null, Readable, null, Duplex, Duplex];
    fourth.end('from outside');
    const [out, said] = await Promise.all([text(child.stdout), text(third)]);
    expect(said).toBe('from inside');
    expect(
      out
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    ).toMatchObject([{ written: 11 }, { text: 'from outside' }]);
    expect((await child.exited).exitCode).toBe(0);
  });

  test('thirty-two', async () => {
    const stdio = Array.from({ length: 32 }, () => 'pipe' as const);
    const child = start([['write-fd', 31, 'the last']], { stdio });
    expect(await text(child.stdio[31] as Duplex)).toBe('the last');
    await child.exited;
  });
});

describe('much data', () => {
  test(`${megabytes} MB both ways`, async () => {
    const child = start(['cat'], {});
    let at = 0;
    const compared = (async () => {
      const expected = pattern(many);
      let wanted: Buffer = Buffer.alloc(0);
      for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
        let rest = chunk;
        while (rest.length > 0) {
          if (wanted.length === 0) wanted = expected.next().value as Buffer;
          const size = Math.min(rest.length, wanted.length);
          if (!rest.subarray(0, size).equals(wanted.subarray(0, size))) throw new Error(`another byte after ${at}`);
          at += size;
          rest = rest.subarray(size);
          wanted = wanted.subarray(size);
        }
      }
    })();
    await Promise.all([pipeline(Readable.from(pattern(many)), child.stdin), compared]);
    expect(at).toBe(many);
    expect((await child.exited).exitCode).toBe(0);
  });

  test(`${megabytes} MB through runIsolated`, async () => {
    const input = Buffer.concat([...pattern(many)]);
    const { stdout } = await runIsolated(insideFixture('probe'), ['cat'], { ...withFixtures({}), input, encoding: 'buffer' });
    expect(Buffer.compare(stdout, input)).toBe(0);
  });

  test('input as a stream', async () => {
    const { stdout } = await runIsolated(insideFixture('probe'), ['cat'], { ...withFixtures({}), input: Readable.from(['a', 'b', 'c']) });
    expect(stdout).toBe('abc');
  });

  test('a reader that pauses holds the program back', async () => {
    const child = start([['write', 1, '8M']], {});
    await once(child.stdout, 'readable');
    // It has stopped reading: what the program may still write is bounded by the pipe and the buffer, 64 KiB each.
    for (let turn = 0; turn < 200; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
    expect(child.stdout.readableLength).toBeLessThan(2 ** 18);
    expect(child.exitCode).toBeNull();
    let size = 0;
    for await (const chunk of child.stdout) size += (chunk as Buffer).length;
    expect(size).toBe(8 * 2 ** 20);
    await child.exited;
  });

  test('a program that does not read holds the writer back', async () => {
    const child = start(['sleep'], {});
    await once(child.stdout, 'data');
    expect(child.stdin.write(Buffer.alloc(2 ** 20))).toBe(false);
    expect(child.stdin.writableNeedDrain).toBe(true);
    child.kill('SIGKILL');
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL' });
  });
});

describe('a program that does not read its input', () => {
  test('is no error of a spawn', async () => {
    // In a process of its own: an error without a listener would end it.
    const { exitCode, stdout, stderr } = await inChild(`
      import { spawnIsolated } from 'cloister';
      const child = spawnIsolated('/bin/sh', ['-c', 'exec <&-; echo closed; read line <&3'], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
      child.stdout.once('data', () => {
        child.stdin.write(Buffer.alloc(1 << 20), () => child.stdio[3].end('\\n'));
      });
      child.on('close', (...args) => console.log('close', ...args));
    `);
    expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: 'close 0 null\n', stderr: '' });
  });

  test('nor of its further descriptors', async () => {
    const { exitCode, stdout, stderr } = await inChild(`
      import { spawnIsolated } from 'cloister';
      const child = spawnIsolated('/bin/true', [], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
      child.stdio[3].write(Buffer.alloc(1 << 22));
      child.stdin.write(Buffer.alloc(1 << 22));
      child.on('close', (...args) => console.log('close', ...args));
    `);
    expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: 'close 0 null\n', stderr: '' });
  });

  test('nor of a run', async () => {
    const { exitCode } = await runIsolated(insideFixture('true'), [], { ...withFixtures({}), input: Buffer.alloc(2 ** 22) });
    expect(exitCode).toBe(0);
  });

  test('a source of input is not waited for', async () => {
    const endless = new Readable({ read() {} });
    endless.push('x');
    const { exitCode } = await runIsolated(insideFixture('true'), [], { ...withFixtures({}), input: endless });
    expect([exitCode, endless.readableEnded]).toEqual([0, false]);
  });

  test('a source of input that fails', async () => {
    const source = new Readable({
      read() {
        this.destroy(new Error('the source has failed'));
      },
    });
    const { stdout, exitCode } = await runIsolated(insideFixture('probe'), ['cat'], { ...withFixtures({}), input: source });
    expect([stdout, exitCode]).toEqual(['', 0]);
  });

  test('without input it reads its end at once', async () => {
    expect((await runIsolated(insideFixture('probe'), ['cat'], withFixtures({}))).stdout).toBe('');
  });
});

describe('inside', () => {
  test.each([
    ['root', {}],
    ['another user', { user: { uid: 1000, gid: 1000 } }],
    ['with init', { init: true }],
  ] satisfies [string, SpawnOptions][])('the streams can be opened again by name: %s', async (_name, options) => {
    const { stdout, stderr } = await runIsolated(
      '/bin/sh',
      ['-c', 'echo one >/dev/stdout; echo two >/dev/stderr; echo three >/dev/fd/1; echo four >/proc/self/fd/2; cat /dev/stdin'],
      { ...options, input: 'five' },
    );
    expect([stdout, stderr]).toEqual(['one\nthree\nfive', 'two\nfour\n']);
  });

  test.each([{}, { init: true }])('there is no other descriptor (%o)', async (options) => {
    // Without close-on-exec, as careless code of the host may have opened it.
    const { stdout } = await inChild(`
      import { runIsolated } from 'cloister';
      const { stdout } = await runIsolated('/probe/probe', ['fds'], {
        mounts: [{ type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true }], ...${JSON.stringify(options)},
      });
      console.log(stdout);
    `);
    expect(parseAnswer('fds', stdout.trim()).fds.map(({ fd, type }) => [fd, type])).toEqual([
      [0, 'fifo'],
      [1, 'fifo'],
      [2, 'fifo'],
    ]);
  });

  test('none is non-blocking', async () => {
    const { stdout } = await runIsolated(insideFixture('probe'), ['fds'], withFixtures({}));
    expect(parseAnswer('fds', stdout.trim()).fds.map(({ nonblocking }) => nonblocking)).toEqual([false, false, false]);
  });
});

describe('the end of the streams', () => {
  test('nobody reads, and still it closes', async () => {
    const child = start(
      [
        ['write', 1, '60K'],
        ['write', 2, '60K'],
      ],
      {},
    );
    expect(await story(child)).toEqual(['spawn', 'spawned', 'exit 0 null', 'exited exit', 'close 0 null']);
  });

  test('what was written before the end can be read after it', async () => {
    const child = sh('echo late', {});
    await child.exited;
    expect(await text(child.stdout)).toBe('late\n');
  });

  test("the program's children hold the pipe: it is closed with them, at the end of PID 1", async () => {
    const child = sh('sleep 1000 & echo parent', {});
    const [out] = await Promise.all([text(child.stdout), once(child, 'close')]);
    expect(out).toBe('parent\n');
  });

  test('where they outlive it (a pid namespace of others), close waits for them', async () => {
    const child = sh('(read line; echo child) <&3 & echo parent', { namespaces: { pid: 'host' }, stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
    const events: string[] = [];
    child.on('close', () => events.push('close'));
    const out = text(child.stdout).finally(() => events.push('end'));
    await child.exited;
    events.push('exited');
    for (let turn = 0; turn < 20; turn++) await new Promise<void>((resolve) => setImmediate(resolve));
    expect(events).toEqual(['exited']);
    (child.stdio as unknown as [unknown, unknown, unknown, Writable])[3].end('\n');
    expect(await out).toBe('parent\nchild\n');
    await settled(() => events.includes('close'));
  });

  test('destroyed output gives the program SIGPIPE', async () => {
    const child = sh('exec yes', { init: true });
    await once(child.stdout, 'data');
    child.stdout.destroy();
    expect(await child.exited).toMatchObject({ signal: 'SIGPIPE' });
  });

  test('nothing is left open', async () => {
    await start([['exit', 0]], {}).exited;
    const before = census(['descriptors', 'handles']);
    for (const stdio of ['pipe', 'ignore', 'inherit', ['pipe', 'pipe', 'pipe', 'pipe', 'ignore', 'pipe'], ['ignore', 9999]] as const) {
      for (let time = 0; time < manySpawns; time++) await start([['exit', 0]], { stdio }).exited.catch(() => {});
    }
    await settled(() => piles(before, census(['descriptors', 'handles'])));
  });
});
