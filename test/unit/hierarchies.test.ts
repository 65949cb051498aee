// Where the hierarchies are, in layouts that this machine does not have. The kernel is asked in test/integration/cgroup-*.test.ts.
import { describe, expect, test } from 'vitest';
import { hierarchiesIn } from '../../lib/cgroup/hierarchies.js';
import { orphanOf, ownedName } from '../../lib/cgroup/owner-name.js';
import { parseMountInfo } from '../../lib/host/mountinfo.js';

const kernel = new Set(['cpuset', 'cpu', 'cpuacct', 'blkio', 'memory', 'devices', 'freezer', 'pids', 'hugetlb']);

function found(mounts: readonly string[], own: readonly string[]) {
  const lines = mounts.map((line, index) => `${30 + index} 1 0:${index} ${line}`);
  const { mode, all } = hierarchiesIn(parseMountInfo(`${lines.join('\n')}\n`), own.join('\n'), kernel, () => 'cpu memory pids\n');
  return { mode, all: all.map(({ version, mountpoint, home, controllers }) => `${version} ${mountpoint} [${controllers.join(' ')}] ${home}`) };
}

const v2 = (root = '/', at = '/sys/fs/cgroup') => `${root} ${at} rw - cgroup2 cgroup2 rw,nsdelegate`;
const v1 = (controllers: string, root = '/') => `${root} /sys/fs/cgroup/${controllers} rw - cgroup cgroup rw,${controllers}`;

describe('hierarchies', () => {
  test('pure v2, as systemd mounts it', () => {
    expect(found([v2()], ['0::/user.slice/user-1000.slice/session-2.scope'])).toEqual({
      mode: 'v2',
      all: ['v2 /sys/fs/cgroup [cpu memory pids] /sys/fs/cgroup/user.slice/user-1000.slice/session-2.scope'],
    });
  });

  test('hybrid: controllers that are mounted together, and a named hierarchy that is nobody else’s', () => {
    const own = ['12:cpu,cpuacct:/a', '5:memory:/b', '1:name=systemd:/init.scope', '0::/init.scope'];
    expect(
      found([v1('cpu,cpuacct'), v1('memory'), '/ /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd', v2('/', '/sys/fs/cgroup/unified')], own),
    ).toEqual({
      mode: 'hybrid',
      all: [
        'v1 /sys/fs/cgroup/cpu,cpuacct [cpu cpuacct] /sys/fs/cgroup/cpu,cpuacct/a',
        'v1 /sys/fs/cgroup/memory [memory] /sys/fs/cgroup/memory/b',
        'v2 /sys/fs/cgroup/unified [cpu memory pids] /sys/fs/cgroup/unified/init.scope',
      ],
    });
  });

  test('v1 alone', () => expect(found([v1('memory'), v1('pids')], ['3:memory:/', '2:pids:/']).mode).toBe('v1'));
  test('none', () => expect(found([], ['0::/'])).toEqual({ mode: 'v2', all: [] }));

  test('in a container: with a cgroup namespace, and with only its own group mounted', () => {
    expect(found([v2()], ['0::/']).all).toEqual(['v2 /sys/fs/cgroup [cpu memory pids] /sys/fs/cgroup']);
    expect(found([v2('/docker/abc')], ['0::/docker/abc']).all).toEqual(['v2 /sys/fs/cgroup [cpu memory pids] /sys/fs/cgroup']);
    expect(found([v2('/docker/abc')], ['0::/docker/abc/deeper']).all).toEqual(['v2 /sys/fs/cgroup [cpu memory pids] /sys/fs/cgroup/deeper']);
  });

  test('our group is not below what is mounted, or above our cgroup namespace', () => {
    expect(found([v2('/docker/abc')], ['0::/elsewhere']).all).toEqual(['v2 /sys/fs/cgroup [cpu memory pids] /sys/fs/cgroup']);
    expect(found([v2('/../..')], ['0::/']).all).toEqual(['v2 /sys/fs/cgroup [cpu memory pids] /sys/fs/cgroup']);
  });

  test('mounted twice is one', () => expect(found([v2(), v2('/', '/mnt/cgroup')], ['0::/']).all).toHaveLength(1));
  test('a group with colons in its name', () => expect(found([v2()], ['0::/a:b:c']).all).toEqual(['v2 /sys/fs/cgroup [cpu memory pids] /sys/fs/cgroup/a:b:c']));
});

describe('names that tell an owner', () => {
  test('ours lives', () => expect(orphanOf(ownedName())).toBeUndefined());
  test('each is another', () => expect(ownedName()).not.toBe(ownedName()));

  test('a pid that is nobody’s, and one that somebody else has by now, are orphans', () => {
    const [, namespace] = ownedName().split('-');
    expect(orphanOf(`cloister-${namespace}-4194304-abc-0.0`)).toEqual({ ownerPid: 4194304, detached: false });
    expect(orphanOf(`cloister-${namespace}-${process.pid}-1-0.0`)).toEqual({ ownerPid: process.pid, detached: false });
    expect(orphanOf(`cloister-detached-${namespace}-4194304-abc-0.0`)).toEqual({ ownerPid: 4194304, detached: true });
  });

  test('another pid namespace’s numbers mean nothing here, nor do names of others', () => {
    for (const name of ['cloister-zzz-4194304-abc-0.0', 'cloister', 'cloister-judge', 'docker-4194304']) expect(orphanOf(name)).toBeUndefined();
  });
});
