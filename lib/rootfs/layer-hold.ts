import { optionError } from '../errors.js';
import { holdLayers, Layer, lineOf } from '../image/layer.js';
import * as check from '../spawn/validate.js';

/** Layers of a store stay in it for as long as a root, or a fork of it, is on them. */
export class LayerHold {
  /** What all of a root's layers are, if all are of stores; else empty: only directories would have to be below a commit. */
  readonly whole: readonly Layer[];
  readonly #release: () => void;
  #users = 1;

  private constructor(whole: readonly Layer[], release: () => void) {
    this.whole = whole;
    this.#release = release;
  }

  static async of(layers: readonly (string | Layer)[]): Promise<LayerHold> {
    const held = layers.filter((layer) => layer instanceof Layer);
    const isWhole = held.length === layers.length;
    return new LayerHold(isWhole ? held : [], await holdLayers(isWhole ? (layers as readonly Layer[]) : held));
  }

  retain(): this {
    this.#users++;
    return this;
  }

  release(): void {
    if (--this.#users === 0) this.#release();
  }
}

/** The option `layers`, base first. */
export function checkLayers(value: unknown): (string | Layer)[] {
  const layers = check.list(value, 'layers', (layer, option) => {
    if (layer instanceof Layer || (typeof layer === 'string' && layer.startsWith('/') && !layer.includes('\0'))) return layer;
    throw optionError(option, "a Layer, or the absolute path of a directory, such as '/work'", layer);
  });
  if (layers.length === 0) throw optionError('layers', 'at least one Layer or directory', layers);
  return layers;
}

/**
 * Directories of those that are to be seen: overlayfs takes no notice of what a layer says of the root itself. One that is there several times, as
 * the empty layer is in many images, only where it is uppermost: that hides and shows all that those below it do, and the kernel takes each once.
 */
export function visible(layers: readonly (string | Layer)[]): string[] {
  const lowest = layers.findLastIndex((layer) => layer instanceof Layer && layer.isOpaque);
  const paths = layers.slice(Math.max(lowest, 0)).map((layer) => (typeof layer === 'string' ? layer : layer.path));
  return paths.filter((path, index) => paths.lastIndexOf(path) === index);
}

/** Whether these are a line of the tree as they are: each the parent of the next. */
export function isLine(layers: readonly Layer[]): boolean {
  const top = layers.at(-1);
  return (
    top !== undefined &&
    lineOf(top)
      .map(({ digest }) => digest)
      .join() === layers.map(({ digest }) => digest).join()
  );
}
