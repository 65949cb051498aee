// The library under the filters of others: those of container engines, and its own.
import { execFileSync } from 'node:child_process';
import { runIsolated, type SpawnOptions } from 'cloister';
import { expect, test } from 'vitest';
import { fixture, fixturesDirectory, repository } from '../helpers/fixtures.js';
import { describeNeeding } from '../helpers/lane.js';

const script = `
  import { Namespace, runIsolated } from 'cloister';
  process.on('SIGUSR1', () => console.log('a handler of the host ran'));
  const mounts = [{ type: 'bind', source: process.argv[1], target: '/probe', readonly: true }];
  const status = async (options) => {
    const { stdout } = await runIsolated('/probe/probe', ['status'], { mounts, ...options });
    const { seccomp, sigIgn, sigCgt } = JSON.parse(stdout);
    return [seccomp, BigInt('0x' + sigIgn) + BigInt('0x' + sigCgt) === 0n].join(' ');
  };
  const told = [await status({}), await status({ init: true }), await status({ idMap: 'self' })];
  const net = await Namespace.create('net');
  told.push(await status({ namespaces: { net } }));
  net.close();
  console.log(JSON.stringify(told));`;
// Filtered; and no signal is ignored or handled.
const expected = ['2 true', '2 true', '2 true', '2 true'];

describeNeeding(['user-namespaces', 'plain-root'])('sandboxes are made', () => {
  test('where clone3 is refused with ENOSYS: by clone', () => {
    const words = ['seccomp-deny', 'clone3', 'ENOSYS', '--', process.execPath, '--input-type=module', '-e', script, fixturesDirectory()];
    expect(JSON.parse(execFileSync(fixture('probe'), words, { encoding: 'utf8', cwd: repository }))).toEqual(expected);
  });

  for (const [name, options] of [
    [
      'with CAP_SYS_ADMIN, under the default profile',
      {
        capabilities: [
          'CAP_SYS_ADMIN',
          'CAP_SETFCAP',
          'CAP_SETUID',
          'CAP_SETGID',
          'CAP_CHOWN',
          'CAP_NET_ADMIN',
          'CAP_DAC_OVERRIDE',
          'CAP_FOWNER',
          'CAP_SYS_RESOURCE',
        ],
      },
    ],
    [
      'without a filter, by a user',
      {
        seccomp: 'unconfined',
        user: { uid: process.getuid?.() === 0 ? 1000 : 0, gid: process.getuid?.() === 0 ? 1000 : 0 },
        capabilities: process.getuid?.() === 0 ? [] : ['CAP_SETFCAP'],
      },
    ],
  ] as const satisfies readonly (readonly [string, SpawnOptions])[]) {
    test(`in a sandbox, ${name}`, async () => {
      const { stdout, stderr } = await runIsolated(process.execPath, ['--input-type=module', '-e', script, '/fixtures'], {
        ...options,
        cwd: repository,
        // An inner /proc may not show what is covered in the outer one.
        maskedPaths: [],
        readonlyPaths: [],
        mounts: [
          { type: 'bind', source: repository, target: repository, readonly: true },
          { type: 'bind', source: fixturesDirectory(), target: '/fixtures', readonly: true },
        ],
      });
      expect(stderr).toBe('');
      expect(JSON.parse(stdout)).toEqual(expected);
    });
  }
});
