import { IsolationError, optionError } from '../../errors.js';
import type { Layer } from '../../image/layer.js';
import { whiteoutIn } from '../../tree/tree.js';
import { aufs } from './aufs.js';
import type { Driver, DriverName } from './driver.js';
import { fuseOverlayfs } from './fuse-overlayfs.js';
import { overlay } from './overlay.js';

/** Best first: in the kernel for everybody; in the kernel for root; by a program. */
const drivers: readonly Driver[] = [overlay, aufs, fuseOverlayfs];

export function checkDriver(value: unknown): 'auto' | DriverName {
  if (value === undefined || value === 'auto') return 'auto';
  const found = drivers.find(({ name }) => name === value);
  if (!found) throw optionError('driver', "'auto', 'overlay', 'aufs' or 'fuse-overlayfs'", value);
  return found.name;
}

/** Layers of a store have their whiteouts in overlayfs's form, which aufs would show as what they are: device nodes. */
export async function refuseLayers(driver: Driver, layers: readonly (string | Layer)[] | undefined): Promise<void> {
  if (driver.name !== 'aufs') return;
  for (const layer of layers ?? []) {
    const found = typeof layer === 'string' ? undefined : await whiteoutIn(layer.path);
    if (found === undefined) continue;
    throw new IsolationError(
      'ERR_CLOISTER_UNSUPPORTED',
      `aufs cannot have the layer ${(layer as Layer).digest}: it takes ${found} of the layers below it away`,
      {
        step: 'use a layer',
        path: found,
        hint: "Use driver 'overlay' or 'fuse-overlayfs'; or put the layers together into one that takes nothing away.",
      },
    );
  }
}

/** The driver of that name, or with 'auto' the best that this host and user have, for the host's tree too if that is asked for. Throws why not. */
export async function chooseDriver(choice: 'auto' | DriverName, host: boolean): Promise<Driver> {
  const refusals: IsolationError[] = [];
  for (const driver of drivers) {
    if (choice === 'auto' ? host && !driver.host : driver.name !== choice) continue;
    if (host && !driver.host) {
      throw new IsolationError('ERR_CLOISTER_UNSUPPORTED', `the host's tree cannot be a root by ${driver.name} in this version`, {
        hint: 'Use OverlayRootfs.create with the layers that you want, or another driver.',
      });
    }
    const refusal = await driver.refusal();
    if (!refusal) return driver;
    refusals.push(refusal);
  }
  const [only, ...others] = refusals as [IsolationError, ...IsolationError[]];
  if (others.length === 0) throw only;
  throw new IsolationError('ERR_CLOISTER_ROOTFS', 'this host and user have no driver for a writable layer', {
    step: 'choose the driver of a root',
    hint: only.hint,
    evidence: refusals.map(({ message }) => message.split('\n')[0] as string),
  });
}
