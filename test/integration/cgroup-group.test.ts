// Making, opening, naming and filling groups; what this host has.
import { existsSync, mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { Cgroup, type CgroupError } from 'cloister';
import { describe, expect, onTestFinished, test } from 'vitest';
import { census, leaks, settled } from '../helpers/census.js';
import { askIn, groupDirectories, makeGroup, startIn } from '../helpers/cgroups.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { startProbe } from '../helpers/probe.js';
import { refusal } from './refusals.js';
import { temporary } from './trees.js';

const unique = (name: string): string => `cloister-test-${name}-${process.pid}`;

describeNeeding(['v2-group'])('create', () => {
  test('without a name: one that tells who we are', async () => {
    const [one, two] = [await makeGroup(), await makeGroup()];
    const startTime = readFileSync('/proc/self/stat', 'utf8').replace(/.*\) /s, '').split(' ')[19];
    expect(one.name).toContain(`-${process.pid}-`);
    expect(one.name).toContain(`-${Number(startTime).toString(36)}-`);
    expect(two.name).not.toBe(one.name);
    expect(groupDirectories(one.name).length).toBeGreaterThan(0);
  });

  test('with a name', async () => {
    const group = await makeGroup({}, { name: unique('named') });
    expect(group.name).toBe(unique('named'));
    expect(groupDirectories(unique('named')).map((path) => basename(path))).toEqual(expect.arrayContaining([unique('named')]));
  });

  test('with a name of several components', async () => {
    const [one, two] = [await makeGroup({}, { name: `${unique('many')}/a/1` }), await makeGroup({}, { name: `${unique('many')}/a/2` })];
    expect([one.name, two.name]).toEqual([`${unique('many')}/a/1`, `${unique('many')}/a/2`]);
    await two.delete();
    expect(groupDirectories(unique('many')).some((path) => path.endsWith('/a/1'))).toBe(true);
    await one.delete();
    // Those between were made for them.
    expect(groupDirectories(unique('many'))).toEqual([]);
  });

  test('with a name that is taken is refused, and leaves the other alone', async () => {
    const group = await makeGroup({}, { name: unique('taken') });
    const { pid } = await startIn(group, ['sleep']);
    const before = groupDirectories(unique('taken'));
    const error = await refusal(Cgroup.create(unique('taken')));
    expect(error).toMatchObject({ name: 'CgroupError', code: 'ERR_CLOISTER_CGROUP', errnoName: 'EEXIST' });
    expect(error.message.replaceAll(/\/\S*\/(?=cloister-test)/g, 'PARENT/').replaceAll(`-${process.pid}`, '')).toMatchInlineSnapshot(`
      "EEXIST: make a control group PARENT/cloister-test-taken (mkdirat): a group of this name exists
        Cgroup.open('PARENT/cloister-test-taken') gives it, or leave the name out: one that nobody else has is chosen."
    `);
    expect(groupDirectories(unique('taken'))).toEqual(before);
    expect(await group.processes()).toEqual([pid]);
  });

  test('with a name that is taken in the last hierarchy only leaves nothing in those before', async () => {
    const name = unique('half');
    const group = await Cgroup.create(name);
    const all = groupDirectories(name);
    await group.delete();
    const kept = all.at(-1) as string;
    mkdirSync(kept);
    onTestFinished(() => rmdirSync(kept));
    expect(await refusal(Cgroup.create(name))).toMatchObject({ errnoName: 'EEXIST' });
    expect(groupDirectories(name)).toEqual([kept]);
  });

  test('many at once, with and without names', async () => {
    const groups = await Promise.all(Array.from({ length: 20 }, (_, index) => makeGroup({}, index % 2 === 0 ? {} : { name: unique(`at-once-${index}`) })));
    expect(new Set(groups.map(({ name }) => name)).size).toBe(20);
  });

  test('below another', async () => {
    const parent = await makeGroup();
    const child = await makeGroup({}, { name: 'inner', parent });
    expect(groupDirectories('inner').every((path) => path.endsWith(`${parent.name}/inner`))).toBe(true);
    await child.delete();
    expect(groupDirectories('inner')).toEqual([]);
  });

  test('that fails half-way leaves nothing', async () => {
    const before = census(['descriptors']);
    const name = unique('half');
    for (const limits of [{ io: [{ device: '4095:7', readBps: 1 }] }, { cpuset: { cpus: '4000' } }, { hugetlb: { '3MB': 0 } }]) {
      const error: CgroupError | Cgroup = await Cgroup.create(name, limits).catch((reason: CgroupError) => reason);
      expect(error).toBeInstanceOf(Error);
      expect(groupDirectories(name)).toEqual([]);
    }
    await settled(() => leaks(before, census(['descriptors'])));
  });
});

describeNeeding(['v2-group'])('child', () => {
  testNeeding(['controller:memory', 'controller:pids'])('has limits within those of its parent', async () => {
    const parent = await makeGroup({ memory: '64M', pids: 10 });
    const child = await parent.child('half', { memory: '32M', pids: 8 });
    expect(await child.limits()).toMatchObject({ memory: { max: 32 * 2 ** 20 }, pids: 8 });
    const [answer] = await askIn(child, [['forkbomb-light', 20]]);
    expect(answer).toMatchObject({ errno: 'EAGAIN', forked: 7 });
    await parent.update({ pids: 5 });
    expect((await askIn(child, [['forkbomb-light', 20]]))[0]).toMatchObject({ errno: 'EAGAIN', forked: 4 });
  });

  testNeeding(['controller:memory'])('what it uses is its parents', async () => {
    const parent = await makeGroup({ memory: '64M' });
    const child = await parent.child('inner');
    const { lines } = await startIn(child, [['alloc', '16M'], 'sleep']);
    await lines.until('ready');
    expect((await parent.stats()).memory?.currentBytes).toBeGreaterThan(16 * 2 ** 20);
    expect((await parent.stats()).populated).toBe(true);
  });

  testNeeding(['cgroup-v2', 'controller:memory'])('of one with processes of its own cannot have controllers, and says so', async () => {
    const parent = await makeGroup({ memory: '64M' });
    await startIn(parent, ['sleep']);
    const error = await refusal(parent.child('inner', { memory: '32M' }));
    expect(error).toMatchObject({ name: 'CgroupError', errnoName: 'EBUSY' });
    expect(error.hint).toBeTruthy();
  });
});

describeNeeding(['v2-group'])('open', () => {
  test('gives one that exists, in every hierarchy', async () => {
    const group = await makeGroup({}, { name: unique('opened') });
    const { pid } = await startIn(group, ['sleep']);
    for (const path of groupDirectories(unique('opened'))) {
      const again = await Cgroup.open(path);
      expect(await again.processes()).toEqual([pid]);
      expect(Object.keys(await again.limits()).length).toBeGreaterThan(0);
    }
  });

  test.each(['/no/such/group', '/tmp', '/'])('%s is none', async (path) => {
    const error = await refusal(Cgroup.open(path));
    expect(error).toMatchObject({ name: 'CgroupError', code: 'ERR_CLOISTER_CGROUP', path });
  });

  test('is not fooled by dots, or by a directory that looks like one', async () => {
    const fake = temporary({ 'cgroup.procs': '', 'cgroup.events': 'populated 0\nfrozen 0\n' });
    const group = await makeGroup();
    const [directory = ''] = groupDirectories(group.name);
    const up = directory.split('/').slice(1).fill('..').join('/');
    for (const path of [fake, `${directory}/${up}${fake}`]) {
      expect(await refusal(Cgroup.open(path))).toMatchObject({ name: 'CgroupError', code: 'ERR_CLOISTER_CGROUP' });
    }
  });
});

describeNeeding(['v2-group'])('add', () => {
  test('moves a process with its threads', async () => {
    const [from, to] = [await makeGroup(), await makeGroup()];
    const { process: child, lines } = startProbe([['burn', 60_000, 3]], { cgroup: from });
    await lines.until('ready');
    await to.add(child.pid as number);
    expect([await from.processes(), await to.processes()]).toEqual([[], [child.pid]]);
    await to.kill();
    await child.exited;
  });

  test('a process that is gone', async () => {
    const group = await makeGroup();
    const { process: child } = startProbe([['exit', 0]]);
    await child.exited;
    const error = await refusal(group.add(child.pid as number));
    expect(error).toMatchObject({ name: 'CgroupError', errnoName: 'ESRCH' });
    expect(error.message.replaceAll(/\d+/g, 'N').replaceAll(/\/\S+\/cgroup\.procs/g, 'FILE')).toMatchInlineSnapshot(
      `"ESRCH: move a process into the control group FILE (write): there is no process N"`,
    );
  });

  test('what is no pid is a wrong option', async () => {
    const group = await makeGroup();
    const messages = await Promise.all(
      [0, -1, 1.5, Number.NaN, '1', 2 ** 31].map((pid) =>
        group.add(pid as number).then(
          () => 'accepted',
          (error: unknown) => (error instanceof TypeError ? error.message : 'not a TypeError'),
        ),
      ),
    );
    expect(messages).toMatchInlineSnapshot(`
      [
        "option 'pid' takes a whole number from 1 to 4194304; got 0",
        "option 'pid' takes a whole number from 1 to 4194304; got -1",
        "option 'pid' takes a whole number from 1 to 4194304; got 1.5",
        "option 'pid' takes a whole number from 1 to 4194304; got NaN",
        "option 'pid' takes a whole number from 1 to 4194304; got "1"",
        "option 'pid' takes a whole number from 1 to 4194304; got 2147483648",
      ]
    `);
  });
});

describe('support', () => {
  test('says what there is, and changes nothing', async () => {
    const before = [readFileSync('/proc/self/cgroup', 'utf8'), readFileSync('/proc/self/mountinfo', 'utf8')];
    const { mode, controllers, root, why, hint } = await Cgroup.support();
    expect(['v1', 'v2', 'hybrid']).toContain(mode);
    for (const { hierarchy, mountpoint } of Object.values(controllers)) {
      expect(['v1', 'v2']).toContain(hierarchy);
      expect(existsSync(join(mountpoint, 'cgroup.procs'))).toBe(true);
    }
    // Where groups can be made, or why not and what would help.
    expect(root === undefined).toBe(why !== undefined && hint !== undefined);
    expect([readFileSync('/proc/self/cgroup', 'utf8'), readFileSync('/proc/self/mountinfo', 'utf8')]).toEqual(before);
  });

  testNeeding(['cgroup-v1', 'root'])('on this layout', async () => {
    const { mode, controllers, root } = await Cgroup.support();
    expect(mode).not.toBe('v2');
    expect(controllers['memory']?.hierarchy).toBe('v1');
    expect(root).toBeDefined();
  });

  testNeeding(['cgroup-v2', 'controller:memory'])('on pure v2', async () => {
    const { mode, controllers } = await Cgroup.support();
    expect(mode).toBe('v2');
    expect(controllers['memory']).toMatchObject({ hierarchy: 'v2', mountpoint: '/sys/fs/cgroup', writable: true });
  });
});
