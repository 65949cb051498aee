import { Readable } from 'node:stream';
import type { Layer } from '../image/layer.js';
import type { LayerStore } from '../image/layer-store.js';
import { checked, native } from '../native.js';
import * as k from '../plan/constants.js';
import { outputOf, startTask } from '../tree/task.js';
import { overlayPrefix } from '../tree/tree.js';
import type { TreeRequest } from '../tree/tree-tasks.js';
import type { FrozenLayer } from './frozen-layer.js';
import type { LayerHold } from './layer-hold.js';
import type { Owner } from './ordinary-owner.js';

/** What has been written as a layer of a store, on the layers that the root is on if those are all in that store. */
export async function commitTo(
  store: LayerStore,
  hold: LayerHold | undefined,
  frozen: readonly FrozenLayer[],
  owner: Owner | undefined,
  diff: Readable,
): Promise<Layer> {
  let parent = hold && (await store.nodeOf(hold.whole));
  const on = (): { parent?: Layer } => (parent ? { parent } : {});
  for (const layer of frozen) parent = await store.import(tarOf(layer, owner), on());
  return await store.import(diff, on());
}

/** One that was writable before a fork: diff() has what came after it. */
function tarOf(layer: FrozenLayer, owner: Owner | undefined): Readable {
  const request: TreeRequest = { kind: 'pack', prefix: overlayPrefix() };
  const module = new URL('../tree/tree-tasks.js', import.meta.url);
  async function* bytes(): AsyncGenerator<Buffer, void, undefined> {
    // Held as a mount, which cannot be read.
    const root = checked(native().files.open(layer.fd, Buffer.from('.'), k.O_RDONLY | k.O_DIRECTORY | k.O_CLOEXEC, 0, 0), 'openat2', 'read a layer of a fork');
    try {
      yield* outputOf(startTask<void>({ module, request, lent: [root], owner, output: true }));
    } finally {
      native().close(root);
    }
  }
  return Readable.from(bytes(), { objectMode: false });
}
