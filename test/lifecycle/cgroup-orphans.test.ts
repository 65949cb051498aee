// Groups of a host that was killed: whoever uses the library next takes them away.
import { mkdirSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Cgroup, reap } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { groupDirectories, groupsOfProcess, makeGroup } from '../helpers/cgroups.js';
import { fixturesDirectory } from '../helpers/fixtures.js';
import { inChild, startChild } from '../helpers/harness.js';
import { describeNeeding } from '../helpers/lane.js';
import { Marker } from './story.js';

const prologue = `
  import { Cgroup, reap, runIsolated, spawnIsolated } from 'cloister';
  const fixtures = { type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true };
  const base = { mounts: [fixtures], env: { CLOISTER_MARKER: process.env.CLOISTER_MARKER }, stdio: 'ignore' };
  const limits = { memory: '64M', pids: 20, cpu: 1 };
`;

/** 100 runs, eight at a time; killed when so many have begun. */
const runs = `${prologue}
  console.log(process.pid);
  const last = Number(process.argv[1]);
  let begun = 0;
  const work = async () => {
    while (begun < 100) {
      const number = ++begun;
      const child = spawnIsolated('/probe/probe', number % 2 ? ['children', '2', 'quiet'] : ['exit', '0'], { ...base, cgroup: limits });
      if (number === last) process.kill(process.pid, 'SIGKILL');
      if (number % 2) child.once('spawn', () => setImmediate(() => child.kill('SIGKILL')));
      await child.exited;
      if (number === -last) process.kill(process.pid, 'SIGKILL');
    }
  };
  await Promise.all(Array.from({ length: 8 }, work));
`;

/** The next one, whatever it does with the same limits. */
const nextRun = `${prologue}
  await runIsolated('/probe/probe', ['exit', '0'], { ...base, cgroup: limits });
`;

describeNeeding(['v2-group', 'controller:memory', 'controller:pids', 'controller:cpu'])('a host that is killed', () => {
  test('in the middle of 100 runs leaves no orphan for the run after the next', { timeout: 120_000 }, async () => {
    const marker = new Marker();
    let found = 0;
    for (const last of [1, 20, 50, 80, -30, -60]) {
      const { signal, stdout } = await inChild(runs, { args: [String(last)], env: marker.env });
      expect(signal).toBe('SIGKILL');
      const pid = Number(stdout);
      found += groupsOfProcess(pid).length;
      expect(await inChild(nextRun, { env: marker.env })).toMatchObject({ exitCode: 0, stderr: '' });
      expect(groupsOfProcess(pid)).toEqual([]);
    }
    // There was something to find.
    expect(found).toBeGreaterThan(0);
    await settled(() => marker.processes(), { what: 'the sandboxes of killed hosts' });
  });

  test('with a group of its own in all hierarchies, and programs of the host’s in it', async () => {
    const marker = new Marker();
    const { stdout } = await inChild(
      `${prologue}
      import { spawn } from 'node:child_process';
      const group = await Cgroup.create(undefined, limits);
      const child = spawn('/bin/sleep', ['1000'], { detached: true, stdio: 'ignore', env: base.env });
      await group.add(child.pid);
      console.log(process.pid);
      setInterval(() => {}, 1000);`,
      { env: marker.env, killAt: /^\d+$/ },
    );
    const pid = Number(stdout);
    expect(groupsOfProcess(pid).length).toBeGreaterThan(0);
    expect(marker.pids().length).toBe(1);
    expect(await inChild(`${prologue} const group = await Cgroup.create(); await group.delete();`, { env: marker.env })).toMatchObject({
      exitCode: 0,
      stderr: '',
    });
    expect(groupsOfProcess(pid)).toEqual([]);
    expect(marker.processes()).toEqual([]);
  });

  test('leaves a detached sandbox running, whose group goes after it has ended', async () => {
    const marker = new Marker();
    const { stdout } = await inChild(
      `${prologue}
      const child = spawnIsolated('/probe/probe', ['sleep'], { ...base, detached: true, cgroup: limits });
      await child.spawned;
      console.log(process.pid);
      setInterval(() => {}, 1000);`,
      { env: marker.env, killAt: /^\d+$/ },
    );
    const name = new RegExp(`^cloister-.*-${Number(stdout)}-`);
    expect(await inChild(nextRun, { env: marker.env })).toMatchObject({ exitCode: 0, stderr: '' });
    const [pid] = marker.pids();
    expect(marker.pids().length).toBe(1);
    expect(groupDirectories(name).length).toBeGreaterThan(0);
    process.kill(pid as number, 'SIGKILL');
    await settled(() => marker.processes(), { what: 'the detached sandbox' });
    expect(await inChild(nextRun, { env: marker.env })).toMatchObject({ exitCode: 0, stderr: '' });
    expect(groupDirectories(name)).toEqual([]);
  });

  test('is found by reap(), which tells', async () => {
    const { stdout } = await inChild(`${prologue} await Cgroup.create(); console.log(process.pid); setInterval(() => {}, 1000);`, { killAt: /^\d+$/ });
    const ownerPid = Number(stdout);
    const names = new Set(groupsOfProcess(ownerPid).map((path) => basename(path)));
    expect(names.size).toBe(1);
    const { removed } = await reap();
    // One group, whatever the number of its directories.
    expect(removed.filter((each) => each.ownerPid === ownerPid)).toEqual([...names].map((name) => ({ kind: 'cgroup', name, ownerPid })));
    expect(groupsOfProcess(ownerPid)).toEqual([]);
  });
});

describeNeeding(['v2-group'])('a group is somebody’s', () => {
  /** The same group's name with another one of its parts, as an empty directory beside it. */
  const beside = async (change: (parts: string[]) => void): Promise<string> => {
    const group = await makeGroup();
    const [directory = ''] = groupDirectories(group.name);
    const parts = group.name.split('-');
    change(parts);
    const path = join(dirname(directory), parts.join('-'));
    mkdirSync(path);
    onTestFinished(() => {
      try {
        rmdirSync(path);
      } catch {
        // The library has taken it away.
      }
    });
    return path;
  };
  const isThere = (path: string): boolean => {
    try {
      readFileSync(join(path, 'cgroup.procs'));
      return true;
    } catch {
      return false;
    }
  };

  test('who lives', async () => {
    const living = startChild(`${prologue} await Cgroup.create(); console.log(process.pid); setInterval(() => {}, 1000);`);
    onTestFinished(() => living.kill());
    const pid = Number(await living.lines.next());
    const before = groupsOfProcess(pid);
    await reap();
    await inChild(`${prologue} await (await Cgroup.create()).delete();`);
    expect(groupsOfProcess(pid)).toEqual(before);
    living.kill();
    await living.ended;
    await reap();
    expect(groupsOfProcess(pid)).toEqual([]);
  });

  test('but not of who has the same pid, and began at another time', async () => {
    const path = await beside((parts) => void parts.splice(3, 1, '1'));
    await reap();
    expect(isThere(path)).toBe(false);
  });

  test('in another pid namespace, of whom we cannot know', async () => {
    const path = await beside((parts) => {
      parts[1] = '7';
      parts[2] = '4000000';
    });
    await reap();
    expect(isThere(path)).toBe(true);
  });

  test('with a name that is not one of ours', async () => {
    const path = await beside((parts) => void parts.splice(1, parts.length, 'judge', '1'));
    await reap();
    expect(isThere(path)).toBe(true);
  });

  test('whose own is never taken away by itself', async () => {
    const group = await makeGroup();
    await reap();
    expect((await group.stats()).populated).toBe(false);
    expect(await Cgroup.open(groupDirectories(group.name)[0] as string)).toBeInstanceOf(Cgroup);
  });
});
