import { dirname, isAbsolute } from 'node:path';
import { optionError } from '../errors.js';
import { Layer } from '../image/layer.js';
import { checkIdMap } from '../security/id-map.js';
import * as check from '../spawn/validate.js';
import { parseSize } from '../units.js';
import { makeDiskUpper, removeDeadUppers } from './disk-upper.js';
import { checkDriver, chooseDriver, refuseLayers } from './drivers/choose.js';
import { LayerHold, visible } from './layer-hold.js';
import type { RootSettings } from './make-root.js';
import { defaultUpperSize } from './ready.js';
import type { OverlayOptions } from './types.js';

/**
 * Checked, with defaults, and with the driver that this host has. `layers`: base first; undefined: the host's tree. Layers of a store are held from
 * now on, and a directory of our own for what is written is made.
 */
export async function settingsOf(
  options: Omit<OverlayOptions, 'layers'>,
  layers: readonly (string | Layer)[] | undefined,
  hide: readonly string[],
): Promise<RootSettings> {
  const choice = checkDriver(options.driver);
  const upper = options.upper === undefined ? 'tmpfs' : options.upper;
  if (upper !== 'tmpfs' && upper !== 'disk' && !(typeof upper === 'string' && isAbsolute(upper) && !upper.includes('\0'))) {
    throw optionError('upper', "'tmpfs', 'disk' or the absolute path of a directory", upper);
  }
  if (options.size !== undefined && upper !== 'tmpfs') {
    throw optionError('size', "nothing unless upper is 'tmpfs': a directory's size needs a project quota, which this version cannot set", options.size);
  }
  const checked: Omit<RootSettings, 'upper' | 'hold' | 'driver'> = {
    layers: layers && visible(layers),
    stores: [...new Set((layers ?? []).flatMap((layer) => (layer instanceof Layer ? dirname(dirname(layer.path)) : [])))],
    frozen: [],
    hide,
    ownUpper: upper === 'disk',
    size: options.size === undefined ? defaultUpperSize : parseSize(options.size, 'size'),
    volatile: options.volatile === undefined ? upper === 'disk' : check.flag(options.volatile, 'volatile'),
    idMap: options.idMap === undefined ? 'auto' : checkIdMap(options.idMap, 'idMap'),
  };
  const driver = await chooseDriver(choice, layers === undefined);
  await refuseLayers(driver, layers);
  if (upper === 'disk') await removeDeadUppers();
  const hold = layers && (await LayerHold.of(layers));
  try {
    return { ...checked, driver, hold, upper: upper === 'disk' ? makeDiskUpper() : upper };
  } catch (error) {
    hold?.release();
    throw error;
  }
}
