import { type Controller, countOrMax, maxText, parseLimit } from './controller.js';

/** cgroup-v2.rst, "PID"; v1 has the same files. */
export const pids: Controller<'pids', number> = {
  key: 'pids',
  v1: 'pids',
  v2: 'pids',
  check: (value, option) => countOrMax(value, option),
  writes: (limit) => [{ file: 'pids.max', text: maxText(limit) }],
  limits: (_version, read) => parseLimit(read('pids.max')),
};
