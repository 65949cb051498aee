/** Roots whose owner was killed, and readers that have gone away. */
import { chownSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { OverlayRootfs, reap, runIsolated } from 'cloister';
import { expect, onTestFinished } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { inChild, startChild } from '../helpers/harness.js';
import { testNeeding } from '../helpers/lane.js';
import { smallRoot, temporary } from '../integration/trees.js';

const isRoot = process.geteuid?.() === 0;
const uppers = isRoot ? '/var/lib/cloister' : tmpdir();

/** Makes a root on disk, with what a program has written to it, and a fork; tells where they are, and waits. */
const script = `
import { OverlayRootfs, runIsolated } from 'cloister';
const root = await OverlayRootfs.create({ layers: [process.argv[1]], upper: 'disk' });
await runIsolated('/bin/probe', ['mkdir', '/d', '--', 'create', '/d/written', 'x', '--', 'chmod', '/d', '0'], { rootfs: root });
const fork = await root.fork();
await runIsolated('/bin/probe', ['create', '/more', 'x'], { rootfs: fork });
const paths = [...(await root.branches()), ...(await fork.branches())].filter(({ writable }) => writable).map(({ path }) => path);
console.log(JSON.stringify(paths));
setInterval(() => {}, 1000);
`;

testNeeding(['overlay'])('what a killed owner has left on disk is taken away, and nothing else', async () => {
  const living = startChild(script, { args: [smallRoot()], deadline: 60_000 });
  const kept = JSON.parse(await living.lines.until(/^\[/)) as string[];
  const killed = startChild(script, { args: [smallRoot()], deadline: 60_000 });
  const left = JSON.parse(await killed.lines.until(/^\[/)) as string[];
  killed.kill();
  await killed.ended;
  expect(left.map((path) => [dirname(path), existsSync(path)])).toEqual([
    [uppers, true],
    [uppers, true],
  ]);
  // Names like ours, of things that are not.
  const name = basename(left[0] as string);
  const others = [join(uppers, `${name}x`), join(uppers, name.replace(/-[^-]*$/, '-AAAAAA')), join(uppers, name.replace(/-[^-]*$/, '-BBBBBB'))];
  const [longer, link, plain] = others as [string, string, string];
  const elsewhere = temporary({ precious: 'x' });
  mkdirSync(longer);
  symlinkSync(elsewhere, link);
  writeFileSync(plain, '');
  onTestFinished(() => {
    for (const path of others) rmSync(path, { recursive: true, force: true });
  });
  const { removed } = await reap();
  const ours = removed.filter(({ ownerPid }) => ownerPid === killed.pid);
  // Two writable layers, and the frozen one that is between.
  expect(ours.map(({ kind }) => kind)).toEqual(['upper', 'upper', 'upper']);
  expect(left.filter((path) => existsSync(path))).toEqual([]);
  expect([...kept, ...others, join(elsewhere, 'precious')].filter((path) => !existsSync(path))).toEqual([]);
  living.kill();
  await living.ended;
  // The next one that is made does the same, unasked.
  await using root = await OverlayRootfs.create({ layers: [smallRoot()], upper: 'disk' });
  expect((await root.branches())[0]?.path).toMatch(uppers);
  expect(kept.filter((path) => existsSync(path))).toEqual([]);
});

testNeeding(['root'])("another user's directory of such a name stays", async () => {
  const place = mkdtempSync(join(tmpdir(), 'cloister-test-'));
  onTestFinished(() => rmSync(place, { recursive: true, force: true }));
  const probe = `
import { mkdirSync, chownSync } from 'node:fs';
import { OverlayRootfs } from 'cloister';
const root = await OverlayRootfs.create({ layers: [process.argv[1]], upper: 'disk' });
console.log((await root.branches())[0].path);
process.kill(process.pid, 'SIGKILL');
`;
  const { stdout } = await inChild(probe, { args: [smallRoot()] });
  const path = stdout.trim();
  chownSync(path, 1234, 1234);
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  await reap();
  expect(existsSync(path)).toBe(true);
});

testNeeding(['overlay'])('whoever reads some of the changes and goes away does not keep the root', async () => {
  const layer = smallRoot();
  await reap();
  const before = census(['descriptors']);
  const root = await OverlayRootfs.create({ layers: [layer], upper: 'disk' });
  await runIsolated('/bin/probe', ['create', '/a', 'x', '--', 'create', '/b', 'x', '--', 'create', '/c', 'x'], { rootfs: root });
  const path = (await root.branches())[0]?.path as string;
  const iterator = root.changes();
  expect(await iterator.next()).toMatchObject({ value: { path: '/a' } });
  // Not reset() either: nobody uses it.
  await root.reset();
  await root[Symbol.asyncDispose]();
  expect(existsSync(path)).toBe(false);
  await settled(() => leaks(before, census(['descriptors'])), { what: 'what the root has held' });
  // It goes on with what it has read.
  expect(await iterator.next()).toMatchObject({ value: { path: '/b' } });
});
