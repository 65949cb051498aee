import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { interfaceFlags } from '../plan/structs.js';

/** netdevice(7). Addresses 127.0.0.1 and ::1 come with it. */
export function bringUpLoopback(plan: PlanBuilder): void {
  plan.label('bring up the loopback device', 'lo');
  const socket = plan.open('socket', 'socket', [k.AF_INET, k.SOCK_DGRAM | k.SOCK_CLOEXEC, 0]);
  plan.add('ioctl', [socket, k.SIOCSIFFLAGS, interfaceFlags('lo', k.IFF_UP)]);
  plan.release(socket);
}
