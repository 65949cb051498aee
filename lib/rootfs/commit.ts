import { Readable } from 'node:stream';
import type { Layer } from '../image/layer.js';
import type { LayerStore } from '../image/layer-store.js';
import { outputOf, startTask } from '../tree/task.js';
import type { TreeRequest } from '../tree/tree-tasks.js';
import type { FrozenLayer } from './frozen-layer.js';
import type { LayerHold } from './layer-hold.js';
import type { Owner } from './ordinary-owner.js';
import { overlayPrefix } from './writable-layer.js';

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
    yield* outputOf(startTask<void>({ module, request, lent: [layer.fd], owner, output: true }));
  }
  return Readable.from(bytes(), { objectMode: false });
}
