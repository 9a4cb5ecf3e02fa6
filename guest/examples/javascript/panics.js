import { panicked } from 'rerank:policy/log@0.1.0';

/**
 * The same function; the message and line of what it throws become part of the policy's fault. A
 * component that ends with an exception only traps, without a word.
 */
export function reported(run) {
  return (...args) => {
    try {
      return run(...args);
    } catch (error) {
      // Anything but an `Error` is one of the contract, and so an answer.
      if (error instanceof Error) {
        const [, file = '', line = 0] = /([^/@\s]+):(\d+):\d+/.exec(error.stack) ?? [];
        panicked(String(error), file, Number(line));
      }
      throw error;
    }
  };
}
