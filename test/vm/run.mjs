// The tests under Debian's own kernels, in virtual machines with pure cgroup v2, as root and as an ordinary user who has a
// delegated subtree of it.
//   npm run test:vm                                    both kernels, both users, the default tests
//   npm run test:vm -- 6.1 test/integration/cgroup     this kernel, the test files whose path has that
//   npm run test:vm -- root                            this user
// CLOISTER_VM_ACCEL=tcg|kvm chooses how the processor is had, CLOISTER_VM_TIMEOUT the seconds that a machine may run.
// CLOISTER_LANE names what else must be there, as in test/helpers/lane.ts: programs are those of this machine. With `selinux` that is on, else AppArmor is.
// CLOISTER_VM_COMMAND='…' runs that in the machine's shell instead of the tests, and prints what it says.
// The last line is the sum: N passed, N failed, N skipped.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runnerImport } from 'vite';
import { abilitiesOf, cache, kernelNames, parametersFor, prepareKernel } from './kernel.mjs';
import { accelerator, boot } from './machine.mjs';

const repository = fileURLToPath(new URL('../../', import.meta.url));
const allUsers = ['root', 'user'];
/** What a kernel can change. Units, types and packages are the same everywhere. */
const defaultTests = ['test/integration', 'test/security', 'test/lifecycle'];

const words = process.argv.slice(2);
const chosen = (from) => (words.some((word) => from.includes(word)) ? from.filter((word) => words.includes(word)) : from);
const [kernels, users] = [chosen(kernelNames), chosen(allUsers)];
const filters = words.filter((word) => !kernelNames.includes(word) && !allUsers.includes(word));
const tests = filters.length > 0 ? filters : defaultTests;

// Compiling takes long in there, and the machine has no other way to tell that what there is is current.
const { module } = await runnerImport(join(repository, 'test/helpers/build-fixtures.ts'));
module.buildFixtures(join(repository, 'test/fixtures/build'));

const command = process.env.CLOISTER_VM_COMMAND ?? '';
const accel = accelerator(prepareKernel(kernels[0]));
const slow = accel !== 'kvm';
const seconds = Number(process.env.CLOISTER_VM_TIMEOUT ?? (slow ? 1800 : 600));
const total = { passed: 0, failed: 0, skipped: 0 };

for (const name of kernels) {
  const started = performance.now();
  const machine = prepareKernel(name);
  const directory = join(cache, `run-${name}`);
  const job = {
    repository,
    node: process.execPath,
    path: `${dirname(process.execPath)}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`,
    users: users.join(' '),
    tests: tests.join(' '),
    command,
    abilities: [abilitiesOf[name], process.env.CLOISTER_LANE].filter(Boolean).join(','),
    share: slow ? 0.1 : 1,
    patience: slow ? 4 : 1,
    timeout: slow ? 240_000 : 60_000,
  };
  console.log(`vm: Linux ${machine.release} (${accel}), ${users.join(' and ')}: ${tests.join(' ')}`);
  const ending = await boot(machine, directory, job, { accel, seconds, parameters: parametersFor(job.abilities) });
  for (const user of users) {
    const counts = report(directory, user) ?? { passed: 0, failed: 1, skipped: 0 };
    console.log(`${name} ${user}: ${sentence(counts)}`);
    for (const key of Object.keys(total)) total[key] += counts[key];
  }
  if (ending !== 'off') {
    total.failed++;
    console.log(`${name}: the machine ended by ${ending}`);
  }
  console.log(`vm: ${name} took ${Math.round((performance.now() - started) / 1000)} s; logs are in ${join(directory, 'share')}`);
}
console.log(sentence(total));
process.exitCode = total.failed > 0 ? 1 : 0;

function sentence({ passed, failed, skipped }) {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** A command counts as one test. */
function saying(directory, user) {
  console.log(readFileSync(join(directory, 'share', `${user}.log`), 'utf8'));
  const passed = readFileSync(join(directory, 'share', `${user}.status`), 'utf8').trim() === '0' ? 1 : 0;
  return { passed, failed: 1 - passed, skipped: 0 };
}

/** What a lane has counted; undefined, and the reason told, if it has not come to its end. */
function report(directory, user) {
  const at = (ending) => join(directory, 'share', `${user}.${ending}`);
  if (!existsSync(at('status')) || !(command || existsSync(at('json')))) {
    const log = existsSync(at('log')) ? at('log') : join(directory, 'console');
    console.log(`FAILED: ${user} did not come to the end; ${log} ends with`);
    console.log(existsSync(log) ? readFileSync(log, 'utf8').split('\n').slice(-40).join('\n') : '(nothing)');
    return undefined;
  }
  if (command) return saying(directory, user);
  const { testResults, numPassedTests, numFailedTests, numPendingTests, numTodoTests = 0 } = JSON.parse(readFileSync(at('json'), 'utf8'));
  let failed = numFailedTests;
  for (const { name, status, message, assertionResults } of testResults) {
    const failures = assertionResults.filter((result) => result.status === 'failed');
    for (const { fullName, failureMessages } of failures) console.log(`FAILED: ${fullName}\n${(failureMessages[0] ?? '').split('\n').slice(0, 12).join('\n')}`);
    if (status === 'failed' && failures.length === 0) {
      // A file that does not load.
      failed++;
      console.log(`FAILED: ${name}\n${message}`);
    }
  }
  // An error outside of any test.
  if (failed === 0 && readFileSync(at('status'), 'utf8').trim() !== '0') failed++;
  return { passed: numPassedTests, failed, skipped: numPendingTests + numTodoTests };
}
