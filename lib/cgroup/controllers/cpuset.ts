import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import { type Controller, cannotExpress, type Write } from './controller.js';

interface Cpuset {
  readonly cpus?: string;
  readonly mems?: string;
  readonly partition?: 'member' | 'root' | 'isolated';
}

const list = (value: unknown, option: string): string => {
  // cpuset(7), "List format"
  if (typeof value !== 'string' || !/^\d+(-\d+(:\d+\/\d+)?)?(,\d+(-\d+(:\d+\/\d+)?)?)*$/.test(value))
    throw optionError(option, "a list such as '0-3,5'", value);
  return value;
};

/** cgroup-v2.rst, "Cpuset"; cgroup-v1/cpusets.rst. */
export const cpuset: Controller<'cpuset', Cpuset> = {
  key: 'cpuset',
  v1: 'cpuset',
  v2: 'cpuset',

  check(value, option) {
    const { cpus, mems, partition } = check.record(value, option);
    check.onlyKeys(value as object, option, ['cpus', 'mems', 'partition']);
    return {
      ...(cpus === undefined ? {} : { cpus: list(cpus, `${option}.cpus`) }),
      ...(mems === undefined ? {} : { mems: list(mems, `${option}.mems`) }),
      ...(partition === undefined ? {} : { partition: check.oneOf(partition, `${option}.partition`, ['member', 'root', 'isolated']) }),
    };
  },

  writes({ cpus, mems, partition }, version) {
    if (partition !== undefined && version === 'v1') throw cannotExpress('cpuset.partition', version, 'it has exclusive sets, but no partitions');
    const writes: Write[] = [];
    if (mems !== undefined) writes.push({ file: 'cpuset.mems', text: mems });
    if (cpus !== undefined) writes.push({ file: 'cpuset.cpus', text: cpus });
    // It has to have processors before it can be a partition.
    if (partition !== undefined) writes.push({ file: 'cpuset.cpus.partition', text: partition });
    return writes;
  },

  limits(version, read) {
    const own = (file: string): string => read(file) || read(version === 'v2' ? `${file}.effective` : file.replace('cpuset.', 'cpuset.effective_')) || '';
    const partition = version === 'v2' ? read('cpuset.cpus.partition') : undefined;
    return { cpus: own('cpuset.cpus'), mems: own('cpuset.mems'), ...(partition === undefined ? {} : { partition }) };
  },

  /** An empty set is refused to processes with ENOSPC (cpuset_can_attach). */
  prepare: (parent) => [
    { file: 'cpuset.mems', text: parent('cpuset.effective_mems') ?? parent('cpuset.mems') ?? '0' },
    { file: 'cpuset.cpus', text: parent('cpuset.effective_cpus') ?? parent('cpuset.cpus') ?? '0' },
  ],
};
