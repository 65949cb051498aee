import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import { type Controller, countOrMax, maxText, parseLimit } from './controller.js';

/** cgroup-v2.rst, "Misc". Keys are names of resources, such as 'sev'; the topmost misc.capacity has those of this host. */
export const misc: Controller<'misc', readonly (readonly [resource: string, limit: number])[]> = {
  key: 'misc',
  v1: 'misc',
  v2: 'misc',

  check: (value, option) =>
    Object.entries(check.record(value, option)).map(([resource, limit]) => {
      if (!/^\w+$/.test(resource)) throw optionError(`${option}.${resource}`, 'nothing: that is no name of a resource', limit);
      return [resource, countOrMax(limit, `${option}.${resource}`)] as const;
    }),

  writes: (limits) => limits.map(([resource, limit]) => ({ file: 'misc.max', text: `${resource} ${maxText(limit)}` })),

  limits: (_version, read) =>
    Object.fromEntries(
      (read('misc.max') ?? '').split('\n').flatMap((line) => {
        const [resource, limit] = line.split(' ');
        return resource && limit ? [[resource, parseLimit(limit)] as const] : [];
      }),
    ),
};
