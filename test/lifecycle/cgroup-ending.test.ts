// freeze, thaw, kill, delete.
import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Cgroup } from 'cloister';
import { expect, onTestFinished, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { groupDirectories, homeOfV2, makeGroup, startIn } from '../helpers/cgroups.js';
import { inChild } from '../helpers/harness.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { parseAnswer, startProbe } from '../helpers/probe.js';
import { refusal } from '../integration/refusals.js';
import { temporary } from '../integration/trees.js';
import { Marker } from './story.js';

/** A program of the host's in this group that counts in a file. */
async function counterIn(group: Cgroup): Promise<() => bigint> {
  const path = join(temporary(), 'count');
  const { lines } = await startIn(group, [['count', path]]);
  await lines.until('ready');
  return () => readFileSync(path).readBigUInt64LE();
}

/** Until a counter has come so much further. */
async function further(count: () => bigint, by: bigint): Promise<void> {
  const from = count();
  await settled(() => count() >= from + by, { what: 'a counter that runs', deadline: 20_000 });
}

describeNeeding(['v2-group'])('freeze', () => {
  test('stops a counter, and thaw continues it', async () => {
    const [frozen, running] = [await makeGroup(), await makeGroup()];
    const [stopped, other] = [await counterIn(frozen), await counterIn(running)];
    await further(stopped, 1_000n);
    await frozen.freeze();
    const at = stopped();
    expect((await frozen.stats()).freezer).toBe('frozen');
    // As long as another program needs for millions.
    await further(other, 5_000_000n);
    expect(stopped()).toBe(at);
    await frozen.thaw();
    expect((await frozen.stats()).freezer).toBe('thawed');
    await further(stopped, 1_000n);
  });

  test('takes children and threads along', async () => {
    const group = await makeGroup();
    const { lines, process: child } = startProbe([['children', 5]], { cgroup: group });
    await lines.next();
    await group.freeze();
    const pids = await group.processes();
    expect(pids.length).toBe(6);
    await group.thaw();
    child.kill();
    await child.exited;
  });

  test('twice is once, and so is thaw', async () => {
    const group = await makeGroup();
    const count = await counterIn(group);
    await Promise.all([group.freeze(), group.freeze()]);
    expect((await group.stats()).freezer).toBe('frozen');
    await Promise.all([group.thaw(), group.thaw()]);
    await group.thaw();
    await further(count, 1_000n);
  });

  test('of a group without processes resolves', async () => {
    const group = await makeGroup();
    await group.freeze();
    await group.thaw();
    expect((await group.stats()).freezer).toBe('thawed');
  });

  test('who is frozen can be killed, and its group removed', async () => {
    const group = await makeGroup();
    await counterIn(group);
    await group.freeze();
    await group.kill();
    expect(await group.processes()).toEqual([]);
    await group.delete();
    expect(groupDirectories(group.name)).toEqual([]);
  });

  test('a sandbox that was frozen ends by its timeout', async () => {
    const group = await makeGroup();
    const { process: child, lines } = startProbe(['sleep'], { cgroup: group, timeout: 500 });
    await lines.until('ready');
    await group.freeze();
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL', reason: 'timeout' });
  });
});

// Whoever enters a frozen group stops there, and so does the thread that waits for it.
describeNeeding(['v2-group'])('a program for a frozen group', () => {
  test('is refused, or starts when the group is thawed: it holds up nobody else', async () => {
    const group = await makeGroup();
    await group.freeze();
    const { process: child } = startProbe([['exit', 0]], { cgroup: group });
    const ended = child.exited.then(
      ({ exitCode }) => `exit ${exitCode}`,
      ({ name }: Error) => name,
    );
    // Another one, in the meantime, is not held up.
    const other = startProbe([['exit', 7]]);
    expect(await other.process.exited).toMatchObject({ exitCode: 7 });
    await group.thaw();
    expect(['exit 0', 'IsolationError', 'CgroupError']).toContain(await ended);
  });

  test('can be killed, and the group deleted, without a thaw', async () => {
    const group = await makeGroup();
    await group.freeze();
    const { process: child } = startProbe(['sleep'], { cgroup: group });
    const ended = child.exited.catch((error: unknown) => error);
    await new Promise((resolve) => setImmediate(resolve));
    child.kill('SIGKILL');
    await ended;
    await group[Symbol.asyncDispose]();
    expect(groupDirectories(group.name)).toEqual([]);
  });
});

describeNeeding(['v2-group'])('kill', () => {
  test('ends 200 processes that fork as fast as they can', async () => {
    const marker = new Marker();
    const group = await makeGroup();
    const { process: child, lines } = startProbe([['churn', 200]], { cgroup: group, env: marker.env });
    expect(parseAnswer('churn', await lines.next())).toMatchObject({ errno: null, forked: 200 });
    await group.kill();
    expect(await group.processes()).toEqual([]);
    expect(marker.processes()).toEqual([]);
    expect(await child.exited).toMatchObject({ signal: 'SIGKILL', reason: 'signal' });
  });

  test('ends them without a pid namespace that would take them along', async () => {
    const marker = new Marker();
    const group = await makeGroup();
    const { process: child, lines } = startProbe([['churn', 200]], { cgroup: group, env: marker.env, namespaces: { pid: 'host' } });
    await lines.next();
    // The first alone: the others go on, in the group.
    child.kill('SIGKILL');
    await child.exited;
    expect((await group.processes()).length).toBeGreaterThan(100);
    await group.kill();
    expect(marker.processes()).toEqual([]);
    expect(await group.processes()).toEqual([]);
  });

  test('ends what is in groups below it', async () => {
    const group = await makeGroup();
    const child = await group.child('inner');
    const { ended } = await startIn(child, ['sleep']);
    await group.kill();
    expect(await ended).toEqual({ code: null, signal: 'SIGKILL' });
    await group.delete();
    expect(groupDirectories(group.name)).toEqual([]);
  });

  test('leaves the group, which can be used again', async () => {
    const group = await makeGroup();
    const first = await startIn(group, ['sleep']);
    await group.kill();
    await first.ended;
    const { process: child } = startProbe([['exit', 5]], { cgroup: group });
    expect(await child.exited).toMatchObject({ exitCode: 5 });
  });

  // From 6.14 on the kernel kills who is cloned into a group that has been killed more often than the caller's own (kill_seq in
  // cgroup_css_set_fork is that of the caller's).
  testNeeding(['root'])('of a group that a host was started in later does not end what it starts', async () => {
    const directory = join(homeOfV2(), `cloister-test-killed-${process.pid}`);
    mkdirSync(directory);
    onTestFinished(() => rmdirSync(directory));
    writeFileSync(join(directory, 'cgroup.kill'), '1');
    const script = `
      import { writeFileSync } from 'node:fs';
      import { runIsolated } from 'cloister';
      writeFileSync(process.argv[1] + '/cgroup.procs', String(process.pid));
      const { exitCode, signal, isolation } = await runIsolated('true', { cgroup: {} });
      console.log(exitCode, signal, isolation.cgroup !== false);
    `;
    expect(await inChild(script, { args: [directory] })).toMatchObject({ stdout: '0 null true\n', stderr: '' });
  });

  test('of an empty group, and twice', async () => {
    const group = await makeGroup();
    await group.kill();
    await Promise.all([group.kill(), group.kill()]);
  });
});

describeNeeding(['v2-group'])('delete', () => {
  test('waits for the last process, and for no clock', async () => {
    const group = await makeGroup();
    const { stdin, ended } = await startIn(group, ['cat']);
    let deleted = false;
    const deletion = group.delete().then(() => {
      deleted = true;
    });
    // It still lives: whatever delete() looks at, it has not happened.
    await group.processes();
    await new Promise((resolve) => setImmediate(resolve));
    expect({ deleted, there: groupDirectories(group.name).length > 0 }).toEqual({ deleted: false, there: true });
    stdin.end();
    await deletion;
    expect(await ended).toMatchObject({ code: 0 });
    expect(groupDirectories(group.name)).toEqual([]);
  });

  test('twice, and at the same time', async () => {
    const group = await makeGroup();
    await Promise.all([group.delete(), group.delete(), group[Symbol.asyncDispose]()]);
    await group.delete();
  });

  test('afterwards everything else is refused', async () => {
    const group = await makeGroup();
    await group.delete();
    const calls = {
      freeze: () => group.freeze(),
      thaw: () => group.thaw(),
      kill: () => group.kill(),
      stats: () => group.stats(),
      add: () => group.add(1),
      child: () => group.child('x'),
      processes: () => group.processes(),
    };
    for (const [name, call] of Object.entries(calls)) expect([name, (await refusal(call())).code]).toEqual([name, 'ERR_CLOISTER_DISPOSED']);
  });

  test('of one that somebody else has removed', async () => {
    const group = await makeGroup();
    const again = await Cgroup.open(groupDirectories(group.name)[0] as string);
    await again.delete();
    await group.delete();
    expect(groupDirectories(group.name)).toEqual([]);
  });

  testNeeding(['root'])('takes groups along that were made inside', async () => {
    const group = await makeGroup();
    const inner = await group.child('a');
    await inner.child('b');
    await group.delete();
    expect(groupDirectories(group.name)).toEqual([]);
  });

  test('is what asyncDispose does, after a kill', async () => {
    const name = await (async () => {
      const group = await Cgroup.create();
      const { process: child, lines } = startProbe(['sleep'], { cgroup: group });
      await lines.until('ready');
      await group[Symbol.asyncDispose]();
      expect(await child.exited).toMatchObject({ signal: 'SIGKILL' });
      return group.name;
    })();
    expect(groupDirectories(name)).toEqual([]);
  });
});
