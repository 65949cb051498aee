import { constants } from 'node:os';

// Some numbers have two names, and the first is the usual one: SIGABRT and not SIGIOT. The last entry of a number wins in a Map.
const names = new Map(
  Object.entries(constants.signals)
    .reverse()
    .map(([name, number]) => [number, name as NodeJS.Signals]),
);

export const signalName = (signal: number): NodeJS.Signals => names.get(signal) ?? (`SIG${signal}` as NodeJS.Signals);
