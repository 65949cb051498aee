import { assembleInto } from './assemble.js';
import { type FilePart, RecipeWriter } from './recipe.js';
import { ByteSink } from './streams.js';

/**
 * Keeps a tar while it is being extracted: as a recipe, or, from the moment on when something of the tree goes that the recipe refers to (the tar has
 * a name twice), as the bytes that it has.
 */
export class TarKeeper {
  readonly #root: number;
  readonly #recipe: number;
  readonly #writer: RecipeWriter;
  readonly #whole: number;
  #sink: ByteSink | undefined;
  /** So much of what is taken next is the content of a file. */
  #referred = 0;

  /** Descriptors: of the tree, and of two empty files. */
  constructor(root: number, recipe: number, whole: number) {
    this.#root = root;
    this.#recipe = recipe;
    this.#writer = new RecipeWriter(recipe);
    this.#whole = whole;
  }

  /** Its bytes, all of them in their order. */
  take(bytes: Buffer): void {
    if (this.#sink) this.#sink.write(bytes);
    else if (this.#referred > 0) this.#referred -= bytes.length;
    else this.#writer.bytes(bytes);
  }

  /** What is taken next is this. */
  refer(part: FilePart): void {
    if (this.#sink) return;
    this.#writer.file(part);
    this.#referred = part.length;
  }

  /** Some file will not be there any more, or not with the same content. */
  beforeLoss(): void {
    if (this.#sink) return;
    this.#writer.end();
    this.#sink = new ByteSink(this.#whole);
    assembleInto(this.#sink, this.#root, this.#recipe);
  }

  /** How it is kept. */
  end(): 'recipe' | 'whole' {
    if (!this.#sink) {
      this.#writer.end();
      return 'recipe';
    }
    this.#sink.flush();
    return 'whole';
  }
}
