import { makeDiskUpper } from './disk-upper.js';
import { freeze } from './freeze.js';
import type { RootSettings } from './make-root.js';
import type { RootReading } from './shared-root.js';

/** Of a root that is made on the layers of another, and a copy of what has been written there. Holds them once more. */
export async function settingsOfFork(settings: RootSettings, reading: RootReading | undefined): Promise<RootSettings> {
  const { hold, frozen, ownUpper, since } = settings;
  const copy = reading && (await freeze(reading.made, reading.below, settings));
  try {
    return {
      ...settings,
      upper: ownUpper ? makeDiskUpper() : 'tmpfs',
      // Nothing fails from here on: each of these is one more to be released.
      hold: hold?.retain(),
      frozen: [...frozen.map((layer) => layer.retain()), ...(copy ? [copy] : [])],
      volatile: ownUpper,
      since: reading?.made.since ?? since,
    };
  } catch (error) {
    await copy?.release(undefined);
    throw error;
  }
}
