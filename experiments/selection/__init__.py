"""The evidence of `nas.select`: what it chose against optima of scores and what people drew, equally fast, trained alike."""
