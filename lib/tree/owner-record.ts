import type { Attributes, Status } from './files.js';

// An ordinary user's files are its own. Whose they are in the layer is recorded in an attribute, as "uid:gid".

export const ownerAttribute = 'user.cloister.owner';

export interface OwnerIds {
  readonly uid: number;
  readonly gid: number;
}

export const ownerRecord = ({ uid, gid }: OwnerIds): Buffer => Buffer.from(`${uid}:${gid}`);

/** The recorded owner, as long as the file is its maker's: whoever gives it to somebody else means that. */
export function ownerOf(status: Pick<Status, 'uid' | 'gid'>, attributes: Attributes): OwnerIds {
  const record = attributes.get(ownerAttribute)?.toString('latin1');
  const match = record === undefined ? null : /^(\d{1,10}):(\d{1,10})$/.exec(record);
  if (!match || status.uid !== 0 || status.gid !== 0) return { uid: status.uid, gid: status.gid };
  const [uid, gid] = [Number(match[1]), Number(match[2])];
  return uid < 0xffffffff && gid < 0xffffffff ? { uid, gid } : { uid: 0, gid: 0 };
}
