// How many calls a second JavaScript decides, and how late the event loop is meanwhile: seccomp.notify with openat and connect.

import { monitorEventLoopDelay } from 'node:perf_hooks';
import { spawnIsolated } from 'cloister';

const calls = 20_000;

/** name → { perSecond, cpuUs (of this process, for each call), loopDelayMs (the 99th percentile) } */
export async function notifyRates(program, options) {
  const rates = {};
  for (const syscall of ['openat', 'connect']) {
    let decided = 0;
    let first = 0;
    let last = 0;
    const delay = monitorEventLoopDelay({ resolution: 1 });
    const decide = () => {
      last = performance.now();
      if (decided++ === 0) first = last;
      return 'continue';
    };
    const child = spawnIsolated(program, [syscall, `${calls}`], { ...options, stdio: 'ignore', seccomp: { notify: { [syscall]: decide } } });
    await child.spawned;
    delay.enable();
    const before = process.cpuUsage();
    await child.exited;
    const { user, system } = process.cpuUsage(before);
    delay.disable();
    rates[syscall] = { perSecond: Math.round((decided * 1000) / (last - first)), cpuUs: (user + system) / decided, loopDelayMs: delay.percentile(99) / 1e6 };
  }
  return rates;
}
