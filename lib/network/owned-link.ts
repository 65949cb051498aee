import { randomInt } from 'node:crypto';

/**
 * At most 15 letters (IFNAMSIZ), so it says who, but not since when: that is in the link's alias. 'b': a bridge, 'v': our end of a
 * pair. Nobody else has it, so that what is said of it in the same breath as it is made is never said of another link.
 */
export function linkName(kind: 'b' | 'v'): string {
  return `${linkPrefix(kind)}${randomInt(36 ** 6)
    .toString(36)
    .padStart(6, '0')}`;
}

/** Of all that this process has. */
export const linkPrefix = (kind: 'b' | 'v'): string => `cl${kind}${process.pid.toString(36)}-`;
