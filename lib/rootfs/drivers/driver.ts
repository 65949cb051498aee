import type { IsolationError } from '../../errors.js';
import type { PlanBuilder } from '../../plan/builder.js';
import type { Slot } from '../../plan/steps.js';
import type { Stage } from '../stage.js';

// What the kernel, or a program beside it, makes one tree of several directories with. docs/drivers.md

export type DriverName = 'overlay' | 'aufs' | 'fuse-overlayfs';

export interface Union {
  /** Descriptors of directories, uppermost first; of mounts, where the driver wants those. */
  readonly lowers: readonly Slot[];
  /** More of them, below those: names of directories, uppermost first, in one that is held. Only where the driver takes layers by descriptor. */
  readonly byName?: LayersByName | undefined;
  readonly writable: Writable | undefined;
  /** Those of the lowers that are written to as well. */
  readonly writableLowers?: ReadonlySet<Slot>;
  /** The caller's superblock is its user namespace's: trusted xattrs are out of reach, so the user.* ones are used. */
  readonly userxattr: boolean;
  /** Nothing of it outlives a crash: the fsync at unmount is saved. */
  readonly volatile: boolean;
}

export interface LayersByName {
  readonly directory: Slot;
  readonly path: string;
  readonly names: readonly string[];
}

export interface Writable {
  readonly upper: Slot;
  readonly work: Slot;
  /** The directory that both are in, and their names there. */
  readonly place: { readonly from: Slot; readonly path: string; readonly upper: string; readonly work: string };
  /** A directory of the caller's, which others may read without the driver. */
  readonly isKept: boolean;
  /** On a tmpfs that has no place: no path leads to it. */
  readonly isPlaceless: boolean;
}

export interface Driver {
  readonly name: DriverName;
  /** Layers are given to another process, which can only take mounts; and they are needed for as long as it runs. */
  readonly layersAreMounts: boolean;
  /** The host's tree: each of its mounts by itself, all of them as one layer, or not at all. */
  readonly host: 'parts' | 'one layer' | undefined;
  /** Owners of layers are shown as idmapped mounts map them. */
  readonly mapsOwners: boolean;
  /** Files named `.wh.` mean that another one is gone: lib/tree/whiteouts.ts. */
  readonly marksByName: boolean;
  /** Directories can be renamed in the layer, and metadata be there without contents: those are read through the mount. */
  readonly redirects: boolean;
  /** Why this host or this user cannot have it. */
  refusal(): Promise<IsolationError | undefined>;
  /** Steps that make a detached mount of it. What has to be started then is left in `stage.servers`. */
  mount(plan: PlanBuilder, stage: Stage, union: Union): Slot;
}
