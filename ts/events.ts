/** Work moved on: `done` of `total` units of `stage` (total 0 = not known). Units of the stage `download` are bytes. */
export interface ProgressEvent {
  readonly type: 'progress'
  readonly stage: string
  readonly done: number
  readonly total: number
}

/** Something was left out or is doubtful, but the work goes on. */
export interface WarningEvent {
  readonly type: 'warning'
  /** Stable code, beginning with `W_` or `E_`. */
  readonly code: string
  readonly message: string
}

/** The work is finished; always the last event of a run that succeeds. */
export interface DoneEvent {
  readonly type: 'done'
  /** Seconds from start to end. */
  readonly seconds: number
}

/** Names of the losses of the method. */
export type LossName =
  | 'self_vision'
  | 'self_text'
  | 'cross_vision'
  | 'cross_text'
  | 'align_vision'
  | 'align_text'
  | 'ot'
  | 'aux'
  | 'total'

/** Losses of a step. */
export type Losses = Readonly<Record<LossName, number>> & {
  /** JumpReLU's Σ (L0 / k − 1)² over the modalities; absent with other activations. */
  readonly sparsity?: number
}

/** A number for each modality. */
export interface PerModality<T = number> {
  readonly vision: T
  readonly text: T
}

/** A number for each block of a code. */
export interface PerBlock<T = number> {
  readonly shared: T
  readonly private: T
}

/** One optimiser step of training. A slow reader sees the newest one only. */
export interface StepEvent {
  readonly type: 'step'
  /** Steps made, counted from 1. */
  readonly step: number
  /** Steps of the whole run. */
  readonly steps: number
  readonly epoch: number
  /** The weighted total. */
  readonly loss: number
  readonly losses: Losses
  /** R² of the self reconstruction of this batch. */
  readonly r2: PerModality
  readonly lr: number
  /** Global norm of the gradient before clipping. */
  readonly gradNorm: number
  /** Mean number of active latents of a token. */
  readonly l0: PerModality<PerBlock>
  /** Latents dead for more than `deadAfterTokens` tokens. */
  readonly dead: PerModality<PerBlock>
  /** Patches and text tokens a second. */
  readonly tokensPerSecond: number
  /** Seconds the step waited for its batch. */
  readonly secondsData: number
  /** Seconds of the whole step. */
  readonly secondsStep: number
}

/** An evaluation in the middle of training. */
export interface EvalEvent {
  readonly type: 'eval'
  readonly step: number
  /** Which pairs: those of the validation store, or of the training store where there is none. */
  readonly split: 'validation' | 'training'
  readonly pairs: number
  readonly r2: PerModality
  readonly losses: Losses
}

/** A checkpoint is complete on disk. */
export interface CheckpointEvent {
  readonly type: 'checkpoint'
  readonly step: number
  readonly path: string
}

/** Events of work that reports progress only. */
export type WorkEvent = ProgressEvent | WarningEvent | DoneEvent

/** Events of training. */
export type TrainEvent = WorkEvent | StepEvent | EvalEvent | CheckpointEvent
