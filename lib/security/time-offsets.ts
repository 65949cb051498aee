import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd } from '../plan/steps.js';

/** In milliseconds. Before exec, which brings the process into its new time namespace: time_namespaces(7). */
export function writeTimeOffsets(plan: PlanBuilder, { monotonic, boottime }: { monotonic: number; boottime: number }): void {
  const line = (clock: string, ms: number): string => {
    const seconds = Math.floor(ms / 1000);
    return `${clock} ${seconds} ${Math.round((ms - seconds * 1000) * 1e6)}\n`;
  };
  plan.label('set the clocks', '/proc/self/timens_offsets');
  const file = plan.open('time offsets', 'openat', [cwd, '/proc/self/timens_offsets', k.O_WRONLY | k.O_CLOEXEC, 0]);
  plan.add('write', [file, Buffer.from(line('monotonic', monotonic) + line('boottime', boottime))]);
  plan.release(file);
}
