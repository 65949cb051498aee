import type { Change } from '../rootfs/types.js';
import { walkPart } from './differences.js';
import type { FileType } from './files.js';
import { pathText } from './names.js';
import type { OverlayPrefix } from './overlay-attributes.js';
import { type PartOrder, partsOf } from './part-order.js';
import { ByteSink } from './streams.js';
import type { TaskDescriptors } from './task.js';

// The task behind OverlayRootfs.changes(): a line for each change.

export interface ChangesRequest {
  readonly prefix: OverlayPrefix;
  readonly parts: readonly PartOrder[];
}

/** Its path as latin1, so that every byte is a character. */
export type ChangeLine = readonly [kind: Change['kind'], type: FileType, path: string];

export function run(request: ChangesRequest, { output, lent }: TaskDescriptors): void {
  const sink = new ByteSink(output as number);
  const tell = (kind: Change['kind'], type: FileType, path: Buffer): void => {
    const line: ChangeLine = [kind, type, path.toString('latin1')];
    sink.write(Buffer.from(`${JSON.stringify(line)}\n`));
  };
  for (const part of partsOf(request.parts, lent)) {
    walkPart(part, request.prefix, {
      deleted: ({ path, status }) => tell('deleted', status.type, path),
      directory: (kind, { path }) => {
        if (kind === 'added' || kind === 'modified') tell(kind, 'directory', path);
      },
      file: (kind, { path, status }) => {
        if (kind !== 'same') tell(kind, status.type, path);
      },
    });
  }
  sink.flush();
}

export function changeOf([kind, type, path]: ChangeLine): Change {
  const pathBytes = Buffer.from(`/${path}`, 'latin1');
  return { path: pathText(pathBytes.subarray(1)), pathBytes, kind, type };
}
