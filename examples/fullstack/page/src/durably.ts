import { createDurably, type RunOf } from 'durably-react'
import { jobNames, type Jobs } from './durably.gen'

export const durably = createDurably<Jobs>({ api: '/api/durably', names: jobNames })

export type Run = RunOf<Jobs>
export type Summary = Jobs['summarizeCsv']['output']
