import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import type { Controller } from './controller.js';

/** cgroup-v1/net_cls.rst and net_prio.rst. v2 has neither: there nftables matches the path of a group (`socket cgroupv2`). */
export const netCls: Controller<'network', number | undefined> = {
  key: 'network',
  v1: 'net_cls',
  v2: undefined,
  check(value, option) {
    const { classId } = networkOf(value, option);
    return classId === undefined ? undefined : check.integer(classId, `${option}.classId`, 0, 2 ** 32 - 1);
  },
  writes: (classId) => (classId === undefined ? [] : [{ file: 'net_cls.classid', text: String(classId) }]),
  limits: (_version, read) => ({ classId: Number(read('net_cls.classid') ?? 0), priorities: {} }),
};

export const netPrio: Controller<'network', readonly (readonly [link: string, priority: number])[]> = {
  key: 'network',
  v1: 'net_prio',
  v2: undefined,
  check(value, option) {
    const { priorities } = networkOf(value, option);
    if (priorities === undefined) return [];
    return Object.entries(check.record(priorities, `${option}.priorities`)).map(([link, priority]) => {
      if (!/^[^\s/]{1,15}$/.test(link)) throw optionError(`${option}.priorities.${link}`, 'nothing: that is no name of a network interface', priority);
      return [link, check.integer(priority, `${option}.priorities.${link}`, 0, 2 ** 32 - 1)] as const;
    });
  },
  writes: (priorities) => priorities.map(([link, priority]) => ({ file: 'net_prio.ifpriomap', text: `${link} ${priority}` })),
  limits: (_version, read) => ({
    classId: 0,
    priorities: Object.fromEntries(
      (read('net_prio.ifpriomap') ?? '').split('\n').flatMap((line) => {
        const [link, priority] = line.split(' ');
        return link && priority && priority !== '0' ? [[link, Number(priority)] as const] : [];
      }),
    ),
  }),
};

function networkOf(value: unknown, option: string): Record<string, unknown> {
  const given = check.record(value, option);
  check.onlyKeys(given, option, ['classId', 'priorities']);
  return given;
}
