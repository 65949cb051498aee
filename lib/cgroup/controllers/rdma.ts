import { optionError } from '../../errors.js';
import * as check from '../../spawn/validate.js';
import { type Controller, countOrMax, maxText, nestedKeyed, parseLimit } from './controller.js';

interface Device {
  readonly name: string;
  readonly handles?: number;
  readonly objects?: number;
}

/** cgroup-v2.rst, "RDMA"; v1 has the same file. Keys are names of devices, such as 'mlx5_0'. */
export const rdma: Controller<'rdma', readonly Device[]> = {
  key: 'rdma',
  v1: 'rdma',
  v2: 'rdma',

  check: (value, option) =>
    Object.entries(check.record(value, option)).map(([name, limits]) => {
      if (!/^[^\s=]+$/.test(name)) throw optionError(`${option}.${name}`, 'nothing: that is no name of a device', limits);
      const { handles, objects } = check.record(limits, `${option}.${name}`);
      check.onlyKeys(limits as object, `${option}.${name}`, ['handles', 'objects']);
      return {
        name,
        ...(handles === undefined ? {} : { handles: countOrMax(handles, `${option}.${name}.handles`) }),
        ...(objects === undefined ? {} : { objects: countOrMax(objects, `${option}.${name}.objects`) }),
      };
    }),

  writes: (limits) =>
    limits.flatMap(({ name, handles, objects }) => {
      const pairs = [
        ...(handles === undefined ? [] : [`hca_handle=${maxText(handles)}`]),
        ...(objects === undefined ? [] : [`hca_object=${maxText(objects)}`]),
      ];
      return pairs.length === 0 ? [] : [{ file: 'rdma.max', text: `${name} ${pairs.join(' ')}` }];
    }),

  limits: (_version, read) =>
    Object.fromEntries(
      Object.entries(nestedKeyed(read('rdma.max'))).map(([name, pairs]) => [
        name,
        { handles: parseLimit(pairs['hca_handle']), objects: parseLimit(pairs['hca_object']) },
      ]),
    ),
};
