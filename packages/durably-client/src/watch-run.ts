import type { RunState } from './reducer.js'
import type { Observable } from './store.js'

export interface RunCallbacks<TOutput = unknown> {
  /** The run is pending or leased. */
  onStart?: (() => void) | undefined
  onComplete?: ((output: TOutput) => void) | undefined
  onFail?: ((error: string) => void) | undefined
}

/** Calls back once for each turn a run takes, including turns that a rendering framework would merge into one. */
export function watchRun<TOutput>(
  run: Observable<RunState<TOutput>>,
  callbacks: () => RunCallbacks<TOutput>,
): () => void {
  let before = run.getSnapshot().status
  return run.subscribe(() => {
    const { status, output, error } = run.getSnapshot()
    if (status === before) return
    const isStart = before === null && (status === 'pending' || status === 'leased')
    before = status
    if (isStart) callbacks().onStart?.()
    if (status === 'completed') callbacks().onComplete?.(output as TOutput)
    if (status === 'failed') callbacks().onFail?.(error ?? '')
  })
}
