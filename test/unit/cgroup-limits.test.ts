// Every wrong limit's refusal, word by word: memory, processors, processes.
import { spawnIsolated } from 'cloister';
import { describe, expect, test } from 'vitest';
import { refusal, refusals } from '../helpers/wrong-limits.js';

describe('refused, with what it takes', () => {
  test('limits', () => {
    expect([null, 1, 'memory', true, [], () => undefined, { memorry: 1 }, { memory: '1M', swap: 0 }].map(refusal)).toMatchInlineSnapshot(`
      [
        "option 'cgroup' takes limits, or a Cgroup; got null",
        "option 'cgroup' takes limits, or a Cgroup; got 1",
        "option 'cgroup' takes limits, or a Cgroup; got "memory"",
        "option 'cgroup' takes limits, or a Cgroup; got true",
        "option 'cgroup' takes an object; got an array of 0",
        "option 'cgroup' takes limits, or a Cgroup; got a function",
        "option 'cgroup.memorry' takes nothing: there is no such option; got 1",
        "option 'cgroup.swap' takes nothing: there is no such option; got 0",
      ]
    `);
  });

  test('memory', () => {
    expect(refusals('memory', -1, 1.5, Number.NaN, '', '1X', '1,5G', '-1M', 'all', true, null, [], { limit: 1 }, 2 ** 64)).toMatchInlineSnapshot(`
      [
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got -1",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got 1.5",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got NaN",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got """,
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got "1X"",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got "1,5G"",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got "-1M"",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got "all"",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got true",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got null",
        "option 'cgroup.memory' takes an object; got an array of 0",
        "option 'cgroup.memory.limit' takes nothing: there is no such option; got 1",
        "option 'cgroup.memory' takes bytes, such as '512M' or 536870912, or 'max'; got 18446744073709552000",
      ]
    `);
    expect(
      refusals('memory', { max: -1 }, { high: 'much' }, { low: 0.5 }, { min: '1m' }, { swapMax: null }, { oomGroup: 1 }, { oomGroup: 'yes' }),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.memory.max' takes bytes, such as '512M' or 536870912, or 'max'; got -1",
        "option 'cgroup.memory.high' takes bytes, such as '512M' or 536870912, or 'max'; got "much"",
        "option 'cgroup.memory.low' takes bytes, such as '512M' or 536870912, or 'max'; got 0.5",
        "option 'cgroup.memory.min' takes bytes, such as '512M' or 536870912, or 'max'; got "1m"",
        "option 'cgroup.memory.swapMax' takes bytes, such as '512M' or 536870912, or 'max'; got null",
        "option 'cgroup.memory.oomGroup' takes true or false; got 1",
        "option 'cgroup.memory.oomGroup' takes true or false; got "yes"",
      ]
    `);
  });

  test('cpu', () => {
    expect(refusals('cpu', 0, -1, Number.NaN, '0.5', '1', true, null, { cores: 1 }, 0.001, 1e-9)).toMatchInlineSnapshot(`
      [
        "option 'cgroup.cpu' takes a number of cores, such as 0.5, or 'max'; got 0",
        "option 'cgroup.cpu' takes a number of cores, such as 0.5, or 'max'; got -1",
        "option 'cgroup.cpu' takes a number of cores, such as 0.5, or 'max'; got NaN",
        "option 'cgroup.cpu' takes a number of cores, such as 0.5, or 'max'; got "0.5"",
        "option 'cgroup.cpu' takes a number of cores, such as 0.5, or 'max'; got "1"",
        "option 'cgroup.cpu' takes a number of cores, such as 0.5, or 'max'; got true",
        "option 'cgroup.cpu' takes an object; got null",
        "option 'cgroup.cpu.cores' takes nothing: there is no such option; got 1",
        "option 'cgroup.cpu' takes at least 1000 µs of processor time in each period of 100000 µs; got 0.001",
        "option 'cgroup.cpu' takes at least 1000 µs of processor time in each period of 100000 µs; got 1e-9",
      ]
    `);
    expect(
      refusals(
        'cpu',
        { max: 0 },
        { max: '50%' },
        { periodUs: 999 },
        { periodUs: 1_000_001 },
        { periodUs: 1e5 + 0.5 },
        { weight: 0 },
        { weight: 10_001 },
        { weight: 1.5 },
        { burstUs: -1 },
        { burstUs: 'max' },
        { idle: 1 },
        { idle: true, weight: 100 },
        { max: 0.05, periodUs: 10_000 },
      ),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.cpu.max' takes a number of cores, such as 0.5, or 'max'; got 0",
        "option 'cgroup.cpu.max' takes a number of cores, such as 0.5, or 'max'; got "50%"",
        "option 'cgroup.cpu.periodUs' takes a whole number from 1000 to 1000000; got 999",
        "option 'cgroup.cpu.periodUs' takes a whole number from 1000 to 1000000; got 1000001",
        "option 'cgroup.cpu.periodUs' takes a whole number from 1000 to 1000000; got 100000.5",
        "option 'cgroup.cpu.weight' takes a whole number from 1 to 10000; got 0",
        "option 'cgroup.cpu.weight' takes a whole number from 1 to 10000; got 10001",
        "option 'cgroup.cpu.weight' takes a whole number from 1 to 10000; got 1.5",
        "option 'cgroup.cpu.burstUs' takes a whole number from 0 to 1099511627776; got -1",
        "option 'cgroup.cpu.burstUs' takes a whole number from 0 to 1099511627776; got "max"",
        "option 'cgroup.cpu.idle' takes true or false; got 1",
        "option 'cgroup.cpu.weight' takes nothing together with cpu.idle, which is the least weight of all; got 100",
        "option 'cgroup.cpu.max' takes at least 1000 µs of processor time in each period of 10000 µs; got 0.05",
      ]
    `);
  });

  test('cpuset', () => {
    expect(
      refusals(
        'cpuset',
        '0',
        0,
        null,
        { cpu: '0' },
        { cpus: 0 },
        { cpus: '' },
        { cpus: 'all' },
        { cpus: '0-' },
        { cpus: '0,,1' },
        { cpus: '0\n1' },
        { cpus: '-1' },
      ),
    ).toMatchInlineSnapshot(`
      [
        "option 'cgroup.cpuset' takes an object; got "0"",
        "option 'cgroup.cpuset' takes an object; got 0",
        "option 'cgroup.cpuset' takes an object; got null",
        "option 'cgroup.cpuset.cpu' takes nothing: there is no such option; got "0"",
        "option 'cgroup.cpuset.cpus' takes a list such as '0-3,5'; got 0",
        "option 'cgroup.cpuset.cpus' takes a list such as '0-3,5'; got """,
        "option 'cgroup.cpuset.cpus' takes a list such as '0-3,5'; got "all"",
        "option 'cgroup.cpuset.cpus' takes a list such as '0-3,5'; got "0-"",
        "option 'cgroup.cpuset.cpus' takes a list such as '0-3,5'; got "0,,1"",
        "option 'cgroup.cpuset.cpus' takes a list such as '0-3,5'; got "0\\n1"",
        "option 'cgroup.cpuset.cpus' takes a list such as '0-3,5'; got "-1"",
      ]
    `);
    expect(refusals('cpuset', { mems: 'a' }, { mems: [0] }, { partition: 'yes' }, { partition: true })).toMatchInlineSnapshot(`
      [
        "option 'cgroup.cpuset.mems' takes a list such as '0-3,5'; got "a"",
        "option 'cgroup.cpuset.mems' takes a list such as '0-3,5'; got an array of 1",
        "option 'cgroup.cpuset.partition' takes 'member', 'root' or 'isolated'; got "yes"",
        "option 'cgroup.cpuset.partition' takes 'member', 'root' or 'isolated'; got true",
      ]
    `);
  });

  test('pids', () => {
    expect(refusals('pids', -1, 1.5, Number.NaN, '10', true, null, {}, 'many')).toMatchInlineSnapshot(`
      [
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got -1",
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got 1.5",
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got NaN",
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got "10"",
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got true",
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got null",
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got an instance of Object",
        "option 'cgroup.pids' takes a whole number from 0 on, or 'max'; got "many"",
      ]
    `);
  });

  test('cpuTimeLimit', () => {
    const limited = (cpuTimeLimit: unknown): string => {
      try {
        spawnIsolated('/no/such/program', [], { cpuTimeLimit: cpuTimeLimit as number }).on('error', () => undefined);
        return 'accepted';
      } catch (error) {
        return (error as Error).message;
      }
    };
    expect([0, -1, Number.NaN, '1', null].map(limited)).toMatchInlineSnapshot(`
      [
        "option 'cpuTimeLimit' takes milliseconds: more than 0, at most 2147483647; got 0",
        "option 'cpuTimeLimit' takes milliseconds: more than 0, at most 2147483647; got -1",
        "option 'cpuTimeLimit' takes milliseconds: more than 0, at most 2147483647; got NaN",
        "option 'cpuTimeLimit' takes milliseconds: more than 0, at most 2147483647; got "1"",
        "option 'cpuTimeLimit' takes milliseconds: more than 0, at most 2147483647; got null",
      ]
    `);
  });
});
