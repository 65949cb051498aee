/** The host process is killed at any moment of its sandboxes' lives. */
import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { inChild } from '../helpers/harness.js';
import { fixturesDirectory } from '../helpers/probe.js';
import { eachOf, Marker } from './story.js';

const hosts = 60;
const atOnce = 6;

/** Sandboxes without end, some of which start at any moment; SIGKILL to itself at an event of the given number. */
const script = `
  import { OverlayRootfs, spawnIsolated } from 'cloister';
  const [moment, turn] = [process.argv[1], Number(process.argv[2])];
  const fixtures = { type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true };
  const base = { mounts: [fixtures], env: { CLOISTER_MARKER: process.env.CLOISTER_MARKER }, stdio: ['ignore', 'pipe', 'ignore'] };
  const die = () => process.kill(process.pid, 'SIGKILL');
  let started = 0, bytes = 0;
  const kinds = [
    (rootfs) => spawnIsolated('/probe/probe', ['children', '2', 'quiet'], base),
    (rootfs) => spawnIsolated('/probe/probe', ['sleep'], { ...base, init: true }),
    (rootfs) => spawnIsolated('/probe/probe', ['write', '1', '100K'], base),
    (rootfs) => spawnIsolated('/probe/probe', ['sleep'], { ...base, stdio: undefined, tty: true }),
    (rootfs) => spawnIsolated('/probe/probe', ['sleep'], { ...base, rootfs }),
    (rootfs) => spawnIsolated('/probe/true', [], base),
  ];
  const work = async (kind) => {
    for (;;) {
      const rootfs = kind === 4 ? await OverlayRootfs.host() : undefined;
      const child = kinds[kind](rootfs);
      process.stdout.write('.');
      started++;
      child.stdout.on('data', (chunk) => {
        bytes += chunk.length;
        if (moment === 'bytes' && bytes >= turn) die();
        // Those that stay are ended by us, the next one starts.
        if (kind < 5 && kind !== 2) child.kill('SIGKILL');
      });
      await child.exited;
      await rootfs?.[Symbol.asyncDispose]();
    }
  };
  for (let kind = 0; kind < ${atOnce}; kind++) void work(kind);
  if (moment === 'turns') {
    let left = turn;
    const count = () => (left-- <= 0 ? die() : setImmediate(count));
    count();
  }
`;

test(`${hosts * atOnce} sandboxes and more, whose hosts are killed at any moment`, { timeout: 180_000 }, async () => {
  const marker = new Marker();
  const before = census(['mounts', 'cgroups']);
  const folder = mkdtempSync(join(tmpdir(), 'cloister-death-'));
  let started = 0;
  const moments = Array.from({ length: hosts }, (_, index): [string, number] =>
    // Turns of the loop from the first to some thousand, closest where the first ones start; and bytes of output.
    index % 3 === 2 ? ['bytes', 1 + index ** 3] : ['turns', Math.floor(1.18 ** index)],
  );
  await eachOf(moments, 2, async ([moment, at]) => {
    const { signal, stdout, stderr } = await inChild(script, { args: [moment, String(at)], env: { ...marker.env, TMPDIR: folder } });
    expect({ signal, stderr }).toEqual({ signal: 'SIGKILL', stderr: '' });
    started += stdout.length;
  });
  expect(started).toBeGreaterThan(300);
  await settled(() => marker.processes(), { deadline: 20_000, what: 'the sandboxes of killed hosts' });
  expect(leaks(before, census(['mounts', 'cgroups']))).toEqual([]);
  // rmdir(2) refuses a directory that is not empty.
  rmdirSync(folder);
});
