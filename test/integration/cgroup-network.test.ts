// net_cls and net_prio: controllers of v1 alone, mounted for a test in a mount namespace of its own.
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { fixturesDirectory, insideDirectory, insideFixture, repository } from '../helpers/fixtures.js';
import { describeNeeding } from '../helpers/lane.js';
import { temporary } from './trees.js';

/** What a program prints, as JSON, on a host that has these hierarchies as well. */
function onHostWith(controllers: readonly string[], script: string): unknown {
  const directory = temporary();
  const mounts = controllers.map((name) => `mkdir -p ${directory}/${name} && mount -t cgroup -o ${name} none ${directory}/${name}`);
  const prologue = `
    import { readFileSync } from 'node:fs';
    import { Cgroup, spawnIsolated } from 'cloister';
    const fixtures = { type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '${insideDirectory}', readonly: true };
    const tell = (value) => console.log(JSON.stringify(value));
    const fileOf = (controller, group, file) => readFileSync(\`${directory}/\${controller}/\${group.name}/\${file}\`, 'utf8').trim();
    const said = (promise) => promise.then(() => 'nothing', ({ code, message }) => code + ' ' + message);
  `;
  // A hierarchy goes with its last mount, unless it has groups then (cgroup_kill_sb). A removed one is freed some time later, which
  // nobody is told: the third column of /proc/cgroups counts them.
  const alone = controllers.map((name) => `until grep -q "^${name}\t[0-9]*\t1\t" /proc/cgroups; do sleep 0.02; done`);
  const shell = `mount -t tmpfs none ${directory} && ${mounts.join(' && ')} && "$0" --input-type=module --eval "$1"\n${alone.join('\n')}`;
  const text = execFileSync('unshare', ['--mount', '--propagation', 'private', 'sh', '-ec', shell, process.execPath, prologue + script], {
    encoding: 'utf8',
    cwd: repository,
  });
  return JSON.parse(text);
}

describeNeeding(['v1-mount:net_cls', 'v1-mount:net_prio', 'program:unshare'])('on a host that has them', () => {
  test('they are set, read back and changed', () => {
    const told = onHostWith(
      ['net_cls', 'net_prio'],
      `
      const { controllers } = await Cgroup.support();
      const group = await Cgroup.create(undefined, { network: { classId: 0x100001, priorities: { lo: 5 } } });
      const files = [fileOf('net_cls', group, 'net_cls.classid'), fileOf('net_prio', group, 'net_prio.ifpriomap').split('\\n').includes('lo 5')];
      const before = (await group.limits()).network;
      await group.update({ network: { classId: 7 } });
      const after = (await group.limits()).network;
      await group.delete();
      tell([controllers.net_cls.hierarchy, controllers.net_prio.hierarchy, files, before, after]);
    `,
    );
    expect(told).toEqual(['v1', 'v1', ['1048577', true], { classId: 0x100001, priorities: { lo: 5 } }, { classId: 7, priorities: { lo: 5 } }]);
  });

  test('a program is in them from its first instruction', () => {
    const told = onHostWith(
      ['net_cls'],
      `
      const child = spawnIsolated('${insideFixture('probe')}', ['sleep'], { mounts: [fixtures], cgroup: { network: { classId: 42 } }, namespaces: { cgroup: 'host' } });
      await new Promise((resolve) => child.stdout.once('data', resolve));
      const line = readFileSync('/proc/' + child.pid + '/cgroup', 'utf8').split('\\n').find((each) => each.includes(':net_cls:'));
      const classId = fileOf('net_cls', child.cgroup, 'net_cls.classid');
      const inIt = line.endsWith('/' + child.cgroup.name);
      child.kill();
      const { isolation } = await child.exited;
      tell([inIt, classId, isolation.cgroup.controllers.includes('net_cls')]);
    `,
    );
    expect(told).toEqual([true, '42', true]);
  });

  test('a link that is not there is refused', () => {
    const told = onHostWith(['net_prio'], `tell(await said(Cgroup.create(undefined, { network: { priorities: { nolink9: 1 } } })));`);
    expect(told).toMatch(/^ERR_CLOISTER_CGROUP ENODEV: .*nolink9/);
  });

  test('one of them is not the other', () => {
    const told = onHostWith(['net_prio'], `tell(await said(Cgroup.create(undefined, { network: { classId: 1 } })));`);
    expect(told).toMatchInlineSnapshot(`
      "ERR_CLOISTER_CGROUP_UNSUPPORTED no hierarchy that is mounted here has the controller net_cls, so network cannot be limited
        It is a controller of cgroup v1: mount -t cgroup -o net_cls none DIRECTORY (as root) gives it a hierarchy of its own, also beside v2."
    `);
  });
});
