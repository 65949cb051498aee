import type { Rule } from './controllers/devices.js';
import { controllers } from './limits.js';
import { type Place, placeOf, readerOf } from './places.js';
import type { CgroupLimitsNow, DeviceRule } from './types.js';

/** As they are in force. `devices`: what is known of those of v2, which cannot be read. */
export function limitsNow(places: readonly Place[], devices: readonly Rule[] | undefined): CgroupLimitsNow {
  const result: Record<string, unknown> = {};
  for (const controller of controllers) {
    const place = placeOf(places, controller);
    if (!place) continue;
    const now =
      place.hierarchy.version === 'v2' && controller.key === 'devices'
        ? devices?.map(plain)
        : controller.limits(place.hierarchy.version, readerOf(place.directory));
    if (now === undefined) continue;
    const { key } = controller;
    // net_cls and net_prio have one part each.
    if (key === 'network' && result[key]) {
      const { classId } = result[key] as NonNullable<CgroupLimitsNow['network']>;
      result[key] = { ...(now as object), classId };
    } else result[key as string] = now;
  }
  return result as CgroupLimitsNow;
}

function plain({ allow, type, major, minor, access }: Rule): DeviceRule {
  return { allow, type, ...(major === undefined ? {} : { major }), ...(minor === undefined ? {} : { minor }), access };
}
