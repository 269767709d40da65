// What the page says, in its two languages.
export const TEXTS = {
  he: {
    input: "קול", record: "להקליט", stop: "לעצור", choose: "לבחור קובץ", drop: "אפשר גם לגרור לכאן קובץ שמע או וידאו",
    language: "שפה", auto: "זיהוי אוטומטי", hotwords: "שמות ומונחים, מופרדים בפסיקים", key: "מפתח", text: "תמליל",
    legend: "ביטחון:", low: "נמוך", middle: "בינוני", click: "לחיצה על מילה (או Ctrl+Enter) משמיעה אותה; אפשר לתקן את הטקסט.",
    correct: "לשמור את התיקון", download: "להוריד {0}", player: "השמעה", empty: "הטקסט יופיע כאן",
    working: "מתמלל…", timing: "מוצא את זמני המילים…", listening: "מקשיב…", done: "{0} שניות שמע תומללו.",
    nothing: "לא נשמע דיבור.", sure: "ביטחון {0}%", saved: "נשמר. {0} תיקונים נאספו.", busy: "השרת עסוק; עוד ניסיון בעוד {0} שניות…",
    microphone: "אין גישה למיקרופון: {0}", lost: "החיבור לשרת נותק.",
  },
  en: {
    input: "Sound", record: "Record", stop: "Stop", choose: "Choose a file", drop: "Or drop an audio or video file here",
    language: "Language", auto: "Identify it", hotwords: "Names and terms, separated by commas", key: "API key", text: "Transcript",
    legend: "Confidence:", low: "low", middle: "medium", click: "Click a word (or Ctrl+Enter) to hear it; the text can be edited.",
    correct: "Save the correction", download: "Download {0}", player: "Playback", empty: "The text will appear here",
    working: "Transcribing…", timing: "Finding the times of words…", listening: "Listening…", done: "{0} seconds of audio transcribed.",
    nothing: "No speech was heard.", sure: "confidence {0} %", saved: "Saved. {0} corrections so far.", busy: "The server is busy; another try in {0} s…",
    microphone: "No microphone: {0}", lost: "The connection to the server was lost.",
  },
};
