import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import { bytesOrMax, type Controller, maxText, parseLimit } from './controller.js';

/** cgroup-v2.rst, "HugeTLB"; cgroup-v1/hugetlb.rst. Keys are sizes as the kernel writes them: '2MB', '1GB'. */
export const hugetlb: Controller<'hugetlb', readonly (readonly [size: string, limit: number])[]> = {
  key: 'hugetlb',
  v1: 'hugetlb',
  v2: 'hugetlb',

  check: (value, option) =>
    Object.entries(check.record(value, option)).map(([size, limit]) => {
      if (!/^\d+[KMG]B$/.test(size)) throw optionError(`${option}.${size}`, "nothing: a size of pages is written as '2MB' or '1GB'", limit);
      return [size, bytesOrMax(limit, `${option}.${size}`)] as const;
    }),

  writes: (limits, version) =>
    limits.map(([size, limit]) => ({
      file: `hugetlb.${size}.${version === 'v2' ? 'max' : 'limit_in_bytes'}`,
      text: version === 'v1' && limit === Number.POSITIVE_INFINITY ? '-1' : maxText(limit),
    })),

  limits: (version, read) =>
    Object.fromEntries(
      hugePageSizes.flatMap((size) => {
        const limit = read(`hugetlb.${size}.${version === 'v2' ? 'max' : 'limit_in_bytes'}`);
        return limit === undefined ? [] : [[size, parseLimit(limit)] as const];
      }),
    ),
};

/** Of all architectures: which of them there are, the files say. */
export const hugePageSizes = ['64KB', '512KB', '1MB', '2MB', '8MB', '16MB', '32MB', '256MB', '512MB', '1GB', '2GB', '16GB'];
