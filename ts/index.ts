/**
 * Train and read LUCID: sparse autoencoders of a vision-language model that share latents between image patches and
 * words.
 *
 * @packageDocumentation
 */
export { type BenchOptions, type BenchResult, bench } from './bench.js'
export {
  type BackboneCheckup,
  type CheckBackboneOptions,
  type CompareOptions,
  type Comparison,
  checkBackbone,
  compareWithSource,
} from './check.js'
export { type Config, configDefaults, type Preset, presets } from './config.js'
export type {
  Cc3mDataset,
  CocoDataset,
  Dataset,
  FlickrDataset,
  FolderDataset,
  ParquetDataset,
  ScenesDataset,
  WebdatasetDataset,
} from './dataset.js'
export { type CudaDevice, type CudaState, type DeviceChoice, type DeviceReport, device } from './device.js'
export { type ErrorDetails, LucidError } from './errors.js'
export {
  type EvaluateOptions,
  evaluate,
  type GroundingTarget,
  type HeatMapKind,
} from './evaluate.js'
export type * from './evaluation.js'
export type * from './events.js'
export {
  type BackboneExamination,
  type Detection,
  type ExamineBackboneOptions,
  examineBackbone,
  type LocalityRow,
  type Probe,
  type ProbeScore,
  type RetrievalRow,
  type SceneKind,
  type SwapRow,
  type SwapScore,
  type SwapShare,
} from './examine.js'
export {
  type Explanation,
  type ExploreOptions,
  Explorer,
  explore,
  type FoundLatent,
  type FoundPair,
  type FoundPlace,
  type SearchResult,
  type Steering,
  type SteerOptions,
} from './explore.js'
export { type ExportedModel, type ExportOptions, exportModel } from './export.js'
export { type ExtractionSummary, type ExtractOptions, extract } from './extract.js'
export type { Figures, FiguresOptions } from './figures/index.js'
export {
  type ActivationInput,
  type ArraySource,
  type ImportOptions,
  importActivations,
  type LengthsInput,
} from './import.js'
export {
  Atlas,
  type AtlasConcept,
  type AtlasData,
  type AtlasHit,
  type AtlasImage,
  type AtlasLatent,
  type ConceptInput,
  type HeatMap,
  type HeatMapQuery,
  type InterpretOptions,
  interpret,
  loadAtlas,
  type ReportOptions,
  type SearchHit,
} from './interpret.js'
export { type MergeOptions, mergeStores } from './merge.js'
export {
  type Block,
  type Codes,
  loadModel,
  type Match,
  type MatchInput,
  type Modality,
  Model,
  type ModelInfo,
} from './model.js'
export type { Control } from './options.js'
export {
  type Absorption,
  type Classification,
  type CompareModelsOptions,
  type ConceptProbe,
  compareModels,
  type EditScore,
  type Likeness,
  type ModalityProbes,
  type ProbeOptions,
  type Probing,
  probe,
  type ReadoutAreas,
  type Stability,
} from './probe.js'
export { type WatchEvent, type WatchOptions, watchReport } from './report/watch.js'
export {
  type Cell,
  type Column,
  type Question,
  type ReproduceEvent,
  type ReproduceOptions,
  type Reproduction,
  type Row,
  reproduce,
  type Scale,
  type Summary,
  type Table,
} from './reproduce/index.js'
export { Run } from './run.js'
export { type LiveQueries, type ServedReport, type ServeOptions, serve } from './serve/index.js'
export { type SplitOptions, type SplitStores, splitStore } from './split.js'
export {
  ActivationStore,
  type Box,
  openStore,
  type Pair,
  type PairInfo,
  type PixelMask,
  type PrecisionError,
  type StoreMeta,
  type StorePrecision,
  type VerifyReport,
} from './store.js'
export { type TrainOptions, type TrainSettings, train } from './train.js'
export { type ManyEvent, type OneOfMany, type TrainManyOptions, trainMany } from './train-many.js'
export { Work } from './work.js'
