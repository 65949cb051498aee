import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { runIsolated, type SpawnOptions, spawnIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { census, settled } from '../helpers/census.js';
import { inChild } from '../helpers/harness.js';
import { Lines } from '../helpers/lines.js';
import { askFully, insideFixture, type Question, toArguments, withFixtures } from '../helpers/probe.js';
import { manySpawns, piles } from './story.js';

function start(questions: readonly Question[], options: SpawnOptions = {}) {
  const child = spawnIsolated(insideFixture('probe'), toArguments(questions), withFixtures({ tty: true, ...options }));
  const terminal = child.stdout as Duplex;
  return { child, terminal, lines: new Lines(terminal) };
}
const sh = (script: string, options: SpawnOptions = {}) => {
  const child = spawnIsolated('/bin/sh', ['-c', script], { tty: true, ...options });
  const terminal = child.stdout as Duplex;
  return { child, terminal, lines: new Lines(terminal) };
};

describe.each([{ init: false }, { init: true }])('a terminal (%o)', (options) => {
  test('is what the three streams are', async () => {
    const { answers } = await askFully(['tty', 'status', 'fds'], { tty: true, ...options });
    const [tty, status, { fds }] = answers;
    expect(tty.isatty).toEqual([true, true, true]);
    expect(tty.ttyname).toEqual(['/dev/pts/0', '/dev/pts/0', '/dev/pts/0']);
    expect(tty.winsize).toEqual({ columns: 80, rows: 24 });
    expect([tty.controlling, tty.openError]).toEqual([expect.stringMatching(/^136:/), null]);
    expect(tty.foreground).toBe(status.pgid);
    expect(status.sid).toBe(status.pid);
    expect(fds.map(({ fd, type }) => [fd, type])).toEqual([
      [0, 'char-device'],
      [1, 'char-device'],
      [2, 'char-device'],
    ]);
  });

  test('has the size that was asked for', async () => {
    const { answers } = await askFully(['tty'], { tty: { columns: 132, rows: 50 }, ...options });
    expect(answers[0].winsize).toEqual({ columns: 132, rows: 50 });
  });

  test('can be opened again by name', async () => {
    const { stdout } = await runIsolated('/bin/sh', ['-c', 'echo one >/dev/tty; echo two >/dev/stdout; echo three >$(tty); echo four >/dev/console'], {
      tty: true,
      ...options,
    });
    expect(stdout.split('\r\n').slice(0, 3)).toEqual(['one', 'two', 'three']);
  });

  test("is the user's", async () => {
    const { stdout } = await runIsolated('/bin/sh', ['-c', 'echo to it >$(tty); stat -c %u $(tty)'], { tty: true, user: '1000:1000', ...options });
    expect(stdout).toBe('to it\r\n1000\r\n');
  });

  test('a new size comes with SIGWINCH', async () => {
    const { child, lines } = start([['winch', 2]], options);
    await lines.until('ready');
    child.resize(100, 40);
    expect(JSON.parse(await lines.next())).toMatchObject({ columns: 100, rows: 40 });
    child.resize(101, 41);
    expect(JSON.parse(await lines.next())).toMatchObject({ columns: 101, rows: 41 });
    expect((await child.exited).exitCode).toBe(0);
  });

  test('a size that is given before the start is that of the start', async () => {
    const { child, lines } = start(['tty'], options);
    child.resize(60, 20);
    expect(JSON.parse(await lines.next()).winsize).toEqual({ columns: 60, rows: 20 });
    await child.exited;
    child.resize(61, 21);
  });

  test('^C reaches the foreground', async () => {
    const { child, terminal, lines } = start([['trap', 'INT', 'interrupted']], options);
    await lines.until('ready');
    terminal.write('\u0003');
    await lines.until(/interrupted$/);
    expect(await child.exited).toMatchObject({ exitCode: 0, reason: 'exit' });
  });

  test('the end of the input is an end of file', async () => {
    const { child, lines } = start([['echo-fd', 0]], options);
    (child.stdin as Duplex).end('a line\n');
    await lines.until('a line');
    expect(JSON.parse(await lines.next())).toMatchObject({ text: 'a line\n' });
    expect((await child.exited).exitCode).toBe(0);
  });

  test('in the middle of a line, too', async () => {
    const { child, lines } = start([['echo-fd', 0]], options);
    (child.stdin as Duplex).write('two ');
    (child.stdin as Duplex).end('words');
    expect(await lines.next()).toContain('"text":"two words"');
    expect((await child.exited).exitCode).toBe(0);
  });

  test('of a run without input', async () => {
    const { stdout, exitCode } = await runIsolated('/bin/sh', ['-c', 'cat; echo end'], { tty: true, ...options });
    expect([stdout.endsWith('end\r\n'), exitCode]).toEqual([true, 0]);
  });

  test('what was written before the end is complete', async () => {
    for (let time = 0; time < 10; time++) {
      const { stdout, exitCode } = await runIsolated('/bin/sh', ['-c', 'stty -opost; seq 1 20000; exit 3'], { tty: true, ...options });
      expect(exitCode).toBe(3);
      expect(stdout).toBe(`${Array.from({ length: 20_000 }, (_, index) => index + 1).join('\n')}\n`);
    }
  });

  test('it hangs up when it is destroyed', async () => {
    const { child, terminal, lines } = start([['trap', 'HUP', 'nobody sees this']], options);
    await lines.until('ready');
    terminal.destroy();
    expect(await child.exited).toMatchObject({ exitCode: 0, reason: 'exit' });
  });

  test('a failed start leaves nothing', async () => {
    const before = census(['descriptors', 'handles']);
    for (let time = 0; time < manySpawns; time++) {
      const child = spawnIsolated('/no/such/program', [], { tty: true, ...options });
      const ended = text(child.stdout as Duplex).catch(() => 'destroyed');
      await expect(child.exited).rejects.toThrow('/no/such/program');
      await ended;
      const unmapped = spawnIsolated('/bin/true', [], { tty: true, user: 'nobody-of-that-name', ...options });
      await expect(unmapped.exited).rejects.toThrow('nobody-of-that-name');
    }
    await settled(() => piles(before, census(['descriptors', 'handles'])));
  });
});

describe('of a terminal', () => {
  test('the streams of the process', async () => {
    const { child } = sh('exit 0');
    expect([child.stdin === (child.stdout as unknown), child.stderr]).toEqual([true, null]);
    expect(child.stdio).toEqual([child.stdin, child.stdout, null]);
    await child.exited;
  });

  test('^C of a shell ends what is in its foreground, and not the shell', async () => {
    const script = 'trap "echo shell lives" INT; /probe/probe sleep; echo "program: $?"';
    const { child, terminal, lines } = sh(script, withFixtures({}));
    await lines.until('ready');
    terminal.write('\u0003');
    await lines.until(/shell lives$/);
    expect(await lines.next()).toBe('program: 130');
    expect((await child.exited).exitCode).toBe(0);
  });

  test('nobody reads it, and still it closes', async () => {
    const child = spawnIsolated('/bin/echo', ['hello'], { tty: true });
    const [code] = await once(child, 'close');
    expect(code).toBe(0);
  });

  test('a process without one cannot be resized', async () => {
    const child = spawnIsolated('/bin/true');
    expect(() => child.resize(80, 24)).toThrowErrorMatchingInlineSnapshot(`[IsolationError: only a process with \`tty\` can be resized]`);
    await child.exited;
  });

  test.each([{}, { init: true }])('nothing is left of many (%o)', async (options) => {
    await runIsolated('/bin/true', [], { tty: true, ...options });
    const before = census(['descriptors', 'handles']);
    for (let time = 0; time < manySpawns; time++) {
      const child = spawnIsolated('/bin/sleep', ['1000'], { tty: true, ...options });
      if (time % 2 === 0) await once(child, 'spawn');
      child.kill('SIGKILL');
      await child.exited;
    }
    await settled(() => piles(before, census(['descriptors', 'handles'])));
  });

  test('its host is not kept alive by it', async () => {
    const { exitCode, stdout } = await inChild(`
      import { runIsolated } from 'cloister';
      console.log((await runIsolated('/bin/sh', ['-c', 'tty'], { tty: true })).stdout.trim());
    `);
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: '/dev/pts/0\n' });
  });
});
