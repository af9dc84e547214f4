"""A page on this machine where videos are uploaded or recorded, classified and explained."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from slowfast.inference.draw import write_explanation
from slowfast.inference.explain import explain
from slowfast.inference.model import VideoModel, load_model
from slowfast.models.attention import EmimAttention
from slowfast.utils.errors import UserError
from slowfast.utils.logging import setup_logging

logger = logging.getLogger(__name__)


def demo(model: str, port: int, device: str) -> int:
    """Serve the page on loopback until Ctrl-C."""
    setup_logging(None, True)
    with tempfile.TemporaryDirectory() as folder:
        page = build_page(load_model(model, device), model, Path(folder))
        serve(page, port).block_thread()
    return 0


def build_page(model: VideoModel, title: str, folder: Path) -> Any:
    """Return the page of a model, whose videos and pictures go to ``folder``."""
    # Before the import: nothing of the page is asked for, or told, elsewhere.
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(folder / "uploads"))
    try:
        import gradio
    except ImportError as error:
        advice = 'pip install "slowfast-emim[demo]", in the repository pip install -r requirements-demo.txt'
        raise UserError(f"gradio is missing, which the page needs: {advice}") from error

    has_motion = any(isinstance(module, EmimAttention) for module in model.model.modules())
    what = ("cam", "motion") if has_motion else ("cam",)

    def show(video: str | None) -> tuple[dict | None, str | None, str | None]:
        """Return probabilities, and the paths of a strip of pictures and of a video, of an uploaded video."""
        if video is None:
            return None, None, None
        try:
            prediction = model.predict(video)
        except UserError as error:
            raise gradio.Error(str(error)) from error
        classes = {one["class"]: one["probability"] for one in prediction.top}
        try:
            write_explanation(explain(model, video, what), folder / "explanation")
        except UserError as error:  # a model without maps
            gradio.Info(str(error))
            return classes, None, None
        return classes, str(folder / "explanation.png"), str(folder / "explanation.mp4")

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.Markdown(f"# {title}\n{len(model.class_names)} classes. Upload a video or record one.")
        with gradio.Row():
            video = gradio.Video(sources=["upload", "webcam"], label="video")
            classes = gradio.Label(num_top_classes=5, label="class, over all views of the test")
        film = gradio.Video(
            label="class activation map and displacements of the central view", autoplay=True, loop=True
        )
        strip = gradio.Image(type="filepath", show_label=False)
        video.change(show, video, [classes, strip, film])
    return page


def serve(page: Any, port: int) -> Any:
    """Serve the page on loopback only and return it."""
    import gradio

    # The default fonts would be fetched from Google.
    theme = gradio.themes.Default(font=["sans-serif"], font_mono=["monospace"])
    try:
        page.launch(
            server_name="127.0.0.1", server_port=port, share=False, theme=theme, prevent_thread_lock=True, quiet=True
        )
    except OSError as error:
        raise UserError(f"--port {port} of 127.0.0.1 cannot be used; choose another") from error
    logger.info("%s has the page; Ctrl-C ends it", page.local_url)
    return page
