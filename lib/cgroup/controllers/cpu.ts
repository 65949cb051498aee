import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import type { Controller, Write } from './controller.js';

interface Cpu {
  /** Cores. */
  readonly max?: number;
  readonly periodUs?: number;
  readonly weight?: number;
  readonly burstUs?: number;
  readonly idle?: boolean;
}

/** The kernel's default; quotas are multiples of it. */
const defaultPeriod = 100_000;
/** min_cfs_quota_period in kernel/sched/core.c. */
const leastQuota = 1000;

/** sched_weight_from_cgroup, sched_weight_to_cgroup: a weight of 100 is 1,024 shares. */
const sharesOf = (weight: number): number => Math.max(2, Math.round((weight * 1024) / 100));
const weightOf = (shares: number): number => Math.min(10_000, Math.max(1, Math.round((shares * 100) / 1024)));

/** cgroup-v2.rst, "CPU"; Documentation/scheduler/sched-bwc.rst and sched-design-CFS.rst for v1. */
export const cpu: Controller<'cpu', Cpu> = {
  key: 'cpu',
  v1: 'cpu',
  v2: 'cpu',

  check(value, option) {
    const given = typeof value === 'object' ? check.record(value, option) : { max: value };
    check.onlyKeys(given, option, ['max', 'periodUs', 'weight', 'burstUs', 'idle']);
    const result: { -readonly [K in keyof Cpu]: Cpu[K] } = {};
    const { max, periodUs, weight, burstUs, idle } = given;
    if (periodUs !== undefined) result.periodUs = check.integer(periodUs, `${option}.periodUs`, 1000, 1_000_000);
    if (max !== undefined) {
      const name = typeof value === 'object' ? `${option}.max` : option;
      result.max = max === 'max' ? Number.POSITIVE_INFINITY : (max as number);
      if (typeof result.max !== 'number' || !(result.max > 0)) throw optionError(name, "a number of cores, such as 0.5, or 'max'", max);
      if (result.max * (result.periodUs ?? defaultPeriod) < leastQuota) {
        throw optionError(name, `at least ${leastQuota} µs of processor time in each period of ${result.periodUs ?? defaultPeriod} µs`, max);
      }
    }
    if (weight !== undefined) result.weight = check.integer(weight, `${option}.weight`, 1, 10_000);
    if (burstUs !== undefined) result.burstUs = check.integer(burstUs, `${option}.burstUs`, 0, 2 ** 40);
    if (idle !== undefined) result.idle = check.flag(idle, `${option}.idle`);
    if (idle === true && weight !== undefined)
      throw optionError(`${option}.weight`, 'nothing together with cpu.idle, which is the least weight of all', weight);
    return result;
  },

  writes({ max, periodUs, weight, burstUs, idle }, version, now) {
    const v2 = version === 'v2';
    const before = bandwidth(v2, now);
    const writes: Write[] = [];
    // A weight is refused while the group is idle (sched_group_set_shares).
    if (idle !== undefined) writes.push({ file: 'cpu.idle', text: idle ? '1' : '0' });
    if (weight !== undefined) writes.push(v2 ? { file: 'cpu.weight', text: String(weight) } : { file: 'cpu.shares', text: String(sharesOf(weight)) });
    const period = periodUs ?? before.period;
    const cores = max ?? before.quota / before.period;
    const quota = cores === Number.POSITIVE_INFINITY ? undefined : Math.round(cores * period);
    const burst: Write[] = burstUs === undefined ? [] : [{ file: v2 ? 'cpu.max.burst' : 'cpu.cfs_burst_us', text: String(burstUs) }];
    const quotas: Write[] = [];
    if (max !== undefined || periodUs !== undefined) {
      if (v2) quotas.push({ file: 'cpu.max', text: `${quota ?? 'max'} ${period}` });
      else {
        const set = { file: 'cpu.cfs_quota_us', text: String(quota ?? -1) };
        // Neither may lead through a share that is larger than both: the parent's may be just as large (tg_cfs_schedulable_down).
        const longer = { file: 'cpu.cfs_period_us', text: String(period) };
        quotas.push(...(period === before.period ? [set] : period > before.period ? [longer, set] : [set, longer]));
      }
    }
    // A burst may not be larger than the quota (tg_set_cfs_bandwidth).
    const lowers = quota !== undefined && before.burst > quota;
    return [...writes, ...(lowers ? [...burst, ...quotas] : [...quotas, ...burst])];
  },

  limits(version, read) {
    const v2 = version === 'v2';
    const { quota, period, burst } = bandwidth(v2, read);
    const weight = v2 ? Number(read('cpu.weight')) : weightOf(Number(read('cpu.shares')));
    const idle = read('cpu.idle');
    const hasBurst = read(v2 ? 'cpu.max.burst' : 'cpu.cfs_burst_us') !== undefined;
    return {
      max: quota / period,
      periodUs: period,
      weight,
      ...(hasBurst ? { burstUs: burst } : {}),
      ...(idle === undefined ? {} : { idle: idle === '1' }),
    };
  },
};

function bandwidth(v2: boolean, read: (file: string) => string | undefined): { quota: number; period: number; burst: number } {
  const [quota, period] = v2 ? (read('cpu.max') ?? 'max').split(' ') : [read('cpu.cfs_quota_us'), read('cpu.cfs_period_us')];
  return {
    quota: quota === undefined || quota === 'max' || Number(quota) < 0 ? Number.POSITIVE_INFINITY : Number(quota),
    period: Number(period ?? defaultPeriod),
    burst: Number(read(v2 ? 'cpu.max.burst' : 'cpu.cfs_burst_us') ?? 0),
  };
}
