(function () {
  const box = document.getElementById("ID"), form = box.querySelector("form"), folds = box.querySelectorAll("details");
  function filter() {
    const words = form.querySelector("input").value.toLowerCase(), chosen = Array.from(form.querySelectorAll("select"));
    let shown = 0;
    folds.forEach(function (fold) {
      const fits = chosen.every(s => !s.value || fold.getAttribute("data-" + s.name.replace("_", "-")) === s.value);
      fold.hidden = !fits || !fold.textContent.toLowerCase().includes(words);
      shown += !fold.hidden;
    });
    form.querySelector("output").textContent = shown + " of " + folds.length;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", e => e.preventDefault());
})();
