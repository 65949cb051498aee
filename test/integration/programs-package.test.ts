// The test suite of a package that others have written: it finds what it expects of a machine, or it fails.
import { runIsolated } from 'cloister';
import { expect } from 'vitest';
import { nodeInside, nodeMounts, packageSuite } from '../helpers/installed.js';
import { testNeeding } from '../helpers/lane.js';

testNeeding(['package-suite'])('minimist passes its own tests', async () => {
  const { stdout, stderr, exitCode } = await runIsolated(nodeInside, ['node_modules/tape/bin/tape', 'node_modules/minimist/test/**/*.js'], {
    cwd: '/srv/suite',
    mounts: [...nodeMounts, { type: 'bind', source: packageSuite() as string, target: '/srv/suite', readonly: true }],
  });
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  expect(stdout.slice(stdout.indexOf('\n1..'))).toMatchInlineSnapshot(`
    "
    1..153
    # tests 153
    # pass  153

    # ok

    "
  `);
});
