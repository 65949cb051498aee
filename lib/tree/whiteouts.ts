// Names that mean that another one is not there: image-spec's layer.md, "Whiteouts", after aufs.

export const whiteoutPrefix: Buffer = Buffer.from('.wh.');
export const opaqueMarker = '.wh..wh..opq';

export const whiteoutName = (name: Buffer): Buffer => Buffer.concat([whiteoutPrefix, name]);

export const isWhiteoutName = (name: Buffer): boolean => name.subarray(0, whiteoutPrefix.length).equals(whiteoutPrefix);
