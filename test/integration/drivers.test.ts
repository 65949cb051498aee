/** Roots by a program: fuse-overlayfs. What is the same with each driver is in histories.test.ts. */
import { existsSync, linkSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LayerStore, OverlayRootfs, runIsolated, spawnIsolated } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { startChild } from '../helpers/harness.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { ask, askFully } from '../helpers/probe.js';
import { refusal, saying } from './refusals.js';
import { smallRoot, temporary } from './trees.js';

const needed = ['user-namespaces', 'fuse', 'program:fuse-overlayfs'] as const;
const driver = 'fuse-overlayfs';

/** Pids of the programs that this process has started, or another one. */
function programsOf(parent: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
        const [, name = '', rest = ''] = /\((.*)\) \S (\d+)/s.exec(stat) ?? [];
        return name === 'fuse-overlayfs' && Number(rest) === parent;
      } catch {
        return false;
      }
    });
}

async function changesOf(root: OverlayRootfs): Promise<string[]> {
  const lines: string[] = [];
  for await (const { kind, type, path } of root.changes()) lines.push(`${kind} ${type} ${path}`);
  return lines.filter((line) => !/\/(dev|proc|sys)$/.test(line)).sort();
}

async function bytesOf(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

const run = (rootfs: OverlayRootfs, ...words: (string | number)[]) => runIsolated('/bin/probe', words.map(String), { rootfs });

test("the best that there is: 'auto' is overlay, where the kernel has it", async () => {
  await using root = await OverlayRootfs.create({ layers: [smallRoot()] });
  expect(root.driver).toBe('overlay');
  expect((await run(root, 'ids')).isolation.root.driver).toBe('overlay');
});

describeNeeding(needed)('fuse-overlayfs', () => {
  test('what is written is in the root, and told', async () => {
    const base = smallRoot({ 'data/old': 'old', 'data/other': 'other', 'gone/a': 'a' });
    await using root = await OverlayRootfs.create({ layers: [base], driver });
    expect(root.driver).toBe(driver);
    const { exitCode, isolation, stdout } = await run(root, 'create', '/data/new', 'hello', '--', 'unlink', '/data/old', '--', 'read', '/data/new');
    expect({ exitCode, stdout }).toMatchObject({ exitCode: 0 });
    expect(isolation.root).toEqual({ driver, readonly: false, missing: [] });
    expect(await changesOf(root)).toEqual(['added file /data/new', 'deleted file /data/old']);
    expect(existsSync(join(base, 'data/old'))).toBe(true);
  });

  test("the host's tree, with what is not to be seen", async () => {
    await using root = await OverlayRootfs.host({ driver, hide: ['/usr/share'] });
    expect(root.driver).toBe(driver);
    const [top, etc, home, hidden, shadow, share] = await ask(
      [
        ['ls', '/'],
        ['ls', '/etc'],
        ['ls', '/home'],
        ['ls', '/usr/share'],
        ['stat', '/etc/shadow'],
        ['stat', '/usr/share'],
      ],
      {
        rootfs: root,
        maskedPaths: [],
      },
    );
    // The probe's place is made for it.
    expect((top as { entries: string[] }).entries.filter((name) => name !== 'probe' && !readdirSync('/').includes(name))).toEqual([]);
    expect(etc).toMatchObject({ entries: expect.arrayContaining(['passwd']) });
    expect([home, hidden, shadow]).toMatchObject([{ entries: [] }, { entries: [] }, { errno: 'ENOENT' }]);
    expect(share).toMatchObject({ mode: '0755' });
    const { answers, result } = await askFully(
      [
        ['create', '/tmp/made', 'x'],
        ['unlink', '/etc/hostname'],
      ],
      { rootfs: root },
    );
    // What is root's on the host, an ordinary user can only read.
    const isRoot = process.geteuid?.() === 0;
    expect(answers).toMatchObject([{ errno: null }, { errno: isRoot ? null : 'EOVERFLOW' }]);
    expect(result.isolation.root.missing.filter((line) => line.includes('EOVERFLOW')).length).toBe(isRoot ? 0 : 1);
    const changes = await changesOf(root);
    expect(changes).toContain('added file /tmp/made');
    expect(changes.filter((line) => line.startsWith('deleted'))).toEqual(isRoot ? ['deleted file /etc/hostname'] : []);
    const [kernel] = await ask([['ls', '/sys']], { rootfs: root });
    expect(kernel).toMatchObject({ entries: expect.arrayContaining(['kernel']) });
    const fork = await root.fork();
    const [there, not] = await ask(
      [
        ['stat', '/tmp/made'],
        ['stat', '/etc/hostname'],
      ],
      { rootfs: fork },
    );
    await fork[Symbol.asyncDispose]();
    expect([there.errno, not.errno]).toEqual([null, isRoot ? 'ENOENT' : null]);
  });

  test('owners, and what root inside may', async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot({ 'data/file': '' })], driver });
    const [status] = await ask([['stat', '/data/file']], { rootfs: root });
    expect(status).toMatchObject({ uid: 0, gid: 0 });
    await run(root, 'create', '/data/mine', '');
    const [mine] = await ask([['stat', '/data/mine']], { rootfs: root });
    expect(mine).toMatchObject({ uid: 0, gid: 0 });
  });

  test('fork, reset, diff, commit', async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot({ 'a/one': '1', 'a/two': '2' })], driver });
    await run(root, 'unlink', '/a/one', '--', 'create', '/a/three', '3');
    const fork = await root.fork();
    expect(fork.driver).toBe(driver);
    expect(await changesOf(fork)).toEqual([]);
    await run(fork, 'unlink', '/a/two');
    expect(await changesOf(fork)).toEqual(['deleted file /a/two']);
    expect(await changesOf(root)).toEqual(['added file /a/three', 'deleted file /a/one']);
    const before = await bytesOf(root.diff());
    expect(await bytesOf(root.diff())).toEqual(before);
    await using store = await LayerStore.open(join(temporary(), 'store'));
    const layer = await root.commit(store);
    expect(layer.sizeBytes).toBeGreaterThan(0);
    await fork[Symbol.asyncDispose]();
    await root.reset();
    expect(await changesOf(root)).toEqual([]);
    const [one] = await ask([['stat', '/a/one']], { rootfs: root });
    expect(one.errno).toBeNull();
    // On the layer that was committed the same is to be seen.
    await using again = await OverlayRootfs.create({ layers: [smallRoot({ 'a/one': '1', 'a/two': '2' }), layer], driver });
    const [gone, three] = await ask(
      [
        ['stat', '/a/one'],
        ['stat', '/a/three'],
      ],
      { rootfs: again },
    );
    expect([gone.errno, three.errno]).toEqual(['ENOENT', null]);
  });

  test('a directory of ours as the writable layer, with a name that has to be escaped', async () => {
    const base = smallRoot();
    const upper = temporary({ 'up,per\\x/': '' });
    const path = join(upper, 'up,per\\x');
    const create = () => OverlayRootfs.create({ layers: [base], driver, upper: path, idMap: 'self' });
    {
      await using root = await create();
      await run(root, 'create', '/kept', 'kept');
    }
    expect(readFileSync(join(path, 'kept'), 'utf8')).toBe('kept');
    await using root = await create();
    expect(await changesOf(root)).toContain('added file /kept');
  });

  test('a file of a layer that has two names: what is told is what is in the writable layer, whatever is shown', async () => {
    const base = smallRoot({ 'data/x': 'old' });
    linkSync(join(base, 'data/x'), join(base, 'data/y'));
    const upper = join(temporary({ 'upper/': '' }), 'upper');
    const create = () => OverlayRootfs.create({ layers: [base], driver, upper, idMap: 'self' });
    {
      await using root = await create();
      await run(root, 'append', '/data/y', ', new', '--', 'link', '/data/y', '/data/z');
    }
    await using root = await create();
    const questions = ['x', 'y', 'z'].map((name) => ['read', `/data/${name}`] as const);
    await ask(questions, { rootfs: root });
    const written = readdirSync(join(upper, 'data')).sort();
    expect(written).toEqual([expect.stringMatching(/^[xy]$/), 'z']);
    const changes = await changesOf(root);
    expect(changes.filter((line) => line.includes('/data'))).toEqual(['added file /data/z', `modified file /data/${written[0]}`]);
    await using store = await LayerStore.open(join(temporary(), 'store'));
    await using again = await OverlayRootfs.create({ layers: [base, await root.commit(store)], driver, idMap: 'self' });
    const answers = await ask(questions, { rootfs: again });
    expect(answers).toMatchObject(['x', 'y', 'z'].map((name) => ({ text: written.includes(name) ? 'old, new' : 'old' })));
  });

  test('its program ends with the root', async () => {
    const before = programsOf(process.pid);
    const root = await OverlayRootfs.create({ layers: [smallRoot()], driver });
    await run(root, 'ids');
    await changesOf(root);
    // One for the root, one for what lies below its writable layer.
    expect(programsOf(process.pid).length - before.length).toBe(2);
    await root[Symbol.asyncDispose]();
    expect(programsOf(process.pid)).toEqual(before);
  });

  test('and with the host process, if that is killed', async () => {
    const script = `
      import { OverlayRootfs, spawnIsolated } from 'cloister';
      const rootfs = await OverlayRootfs.create({ layers: [process.argv[1]], driver: '${driver}' });
      const child = spawnIsolated('/bin/probe', ['sleep'], { rootfs });
      await child.spawned;
      console.log('running');
    `;
    const child = startChild(script, { args: [smallRoot()], deadline: 55_000 });
    await child.lines.until('running');
    const pids = programsOf(child.pid);
    // One for what is below the writable layer as well, where that is mounted from the start: before 6.15.
    expect(pids.length).toBeOneOf([1, 2]);
    child.kill('SIGKILL');
    await child.ended;
    await settled(() => pids.filter((pid) => existsSync(`/proc/${pid}`)).map(String), { what: 'the program of a host that was killed' });
  });

  test('an event loop with nothing else to do is not kept running', async () => {
    const script = `
      import { OverlayRootfs } from 'cloister';
      await OverlayRootfs.create({ layers: [process.argv[1]], driver: '${driver}', idMap: 'self' });
      console.log('made');
    `;
    expect(await startChild(script, { args: [smallRoot()], deadline: 55_000 }).ended).toMatchObject({ exitCode: 0, stdout: 'made\n' });
  });

  test('it has little: the files of the host are read-only to it, and no device is there', async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot()], driver, idMap: 'self' });
    const [pid] = programsOf(process.pid) as [number];
    for (const kind of ['mnt', 'pid', 'ipc', 'uts', 'net', 'cgroup']) {
      expect(readlinkSync(`/proc/${pid}/ns/${kind}`), kind).not.toBe(readlinkSync(`/proc/self/ns/${kind}`));
    }
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    expect(/^NoNewPrivs:\t(\d)/m.exec(status)?.[1]).toBe('1');
    expect(/^CapBnd:\t(\w+)/m.exec(status)?.[1]).toBe('000000008820001f');
    const mounts = readFileSync(`/proc/${pid}/mountinfo`, 'utf8')
      .split('\n')
      .filter(Boolean)
      .map((line) => line.split(' '));
    const writable = mounts.filter(([, , , , , options = '']) => options.startsWith('rw')).map(([, , , , path]) => path);
    expect(writable.filter((path) => path !== '/proc' && !path?.startsWith('/dev'))).toEqual([]);
    expect(root.driver).toBe(driver);
  });

  test('a program that was killed is told, and reset() starts another', async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot()], driver, idMap: 'self' });
    const [pid] = programsOf(process.pid) as [number];
    process.kill(pid, 'SIGKILL');
    await settled(() => !existsSync(`/proc/${pid}`));
    await settled(async () => (await run(root, 'ids').catch((error: Error) => error)) instanceof Error);
    expect(await saying(run(root, 'ids'))).toMatchInlineSnapshot(`
      "the root has lost its program fuse-overlayfs, which has ended: signal 9
        reset() begins anew, without what was written; a writable layer in a directory of yours is still there."
    `);
    await root.reset();
    expect((await run(root, 'ids')).exitCode).toBe(0);
  });

  test('a process that outlives us cannot have such a root', async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot()], driver });
    expect(() => spawnIsolated('/bin/probe', ['ids'], { rootfs: root, detached: true })).toThrow(
      "option 'detached' takes false with a root of fuse-overlayfs: the program behind it ends with this process; got true",
    );
  });

  test('a layer that is not there', async () => {
    const error = await refusal(OverlayRootfs.create({ layers: ['/not/there'], driver }));
    expect(error).toMatchObject({ code: 'ERR_CLOISTER_ROOTFS', errnoName: 'ENOENT', path: '/not/there' });
    expect(programsOf(process.pid)).toEqual([]);
  });

  test('its layers cannot be changed', async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot()], driver });
    expect(await saying(root.addBranch('/usr'))).toMatchInlineSnapshot(`
      "addBranch: with fuse-overlayfs the layers are fixed when it is mounted; only aufs can change them
        Make another OverlayRootfs with the layers that you want; fork() takes what has been written along."
    `);
  });

  testNeeding(['root'])("mount(): for the host's tools", async () => {
    await using root = await OverlayRootfs.create({ layers: [smallRoot({ 'data/file': 'x' })], driver });
    await run(root, 'create', '/data/new', 'new');
    const target = mkdtempSync(join(tmpdir(), 'cloister-mount-'));
    onTestFinished(() => rmSync(target, { recursive: true }));
    const mounted = await root.mount(target);
    expect(readFileSync(join(target, 'data/new'), 'utf8')).toBe('new');
    await mounted[Symbol.asyncDispose]();
    expect(existsSync(join(target, 'data'))).toBe(false);
  });
});

testNeeding(['unprivileged', 'program:fuse-overlayfs'])('a device that this user may not open', async () => {
  if (((statSync('/dev/fuse', { throwIfNoEntry: false })?.mode ?? 0o666) & 0o006) !== 0) return;
  expect(await saying(OverlayRootfs.create({ layers: ['/usr'], driver }))).toMatchInlineSnapshot(`
    "EACCES: use the driver 'fuse-overlayfs' /dev/fuse (access): this user may not open the device
      As root: chmod 666 /dev/fuse, which is how most distributions have it."
  `);
});
